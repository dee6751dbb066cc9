"""Runs jobs in a few threads; more jobs wait, and no VM has two at once."""

import threading
from collections import deque
from typing import Final

import structlog

from agent.backup_vm import BackupJob

_log = structlog.get_logger(__name__)
_WAIT_S: Final = 1.0


class JobRunner:
    """At most `jobs_in_parallel` jobs run; thread-safe.

    A job whose VM is still busy, such as with removing the snapshot of a job
    that was cancelled, waits without holding up jobs of other VMs.
    """

    def __init__(self, jobs_in_parallel: int) -> None:
        self._changed = threading.Condition()
        self._queue: deque[BackupJob] = deque()
        self._running: dict[str, BackupJob] = {}
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"job-{number}", daemon=True)
            for number in range(jobs_in_parallel)
        ]
        for thread in self._threads:
            thread.start()

    def alive_job_ids(self) -> set[str]:
        """Jobs that wait, run or clean up: those that have or may yet take a snapshot."""
        with self._changed:
            return set(self._running) | {job.job_id for job in self._queue}

    def find(self, job_id: str) -> BackupJob | None:
        """The queued or running job of that id."""
        with self._changed:
            queued = next((job for job in self._queue if job.job_id == job_id), None)
            return queued or self._running.get(job_id)

    def add(self, job: BackupJob) -> None:
        """Queue a job. A job id that is known already changes nothing."""
        with self._changed:
            if self._closed or self.find(job.job_id) is not None:
                return
            self._queue.append(job)
            self._changed.notify_all()

    def cancel(self, job: BackupJob, error: Exception) -> None:
        """End a job; one that only waits in the queue ends, and reports so, at once.

        Unless there is a snapshot for it to remove: then it is the next to run.
        """
        job.cancellation.cancel(error)
        with self._changed:
            try:
                self._queue.remove(job)
            except ValueError:
                return  # it is running: its thread cleans up and reports
            if job.is_resumed:
                self._queue.appendleft(job)
                return
        job.run()

    def cancel_all(self, error: Exception) -> None:
        """End every job with this error."""
        with self._changed:
            jobs = [*self._queue, *self._running.values()]
        for job in jobs:
            self.cancel(job, error)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no job is left; False when some still clean up after that time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._running, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Take no more jobs and end the threads; the caller has cancelled what must end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.run()
            finally:
                with self._changed:
                    del self._running[job.job_id]
                    self._changed.notify_all()

    def _next(self) -> BackupJob | None:
        with self._changed:
            while not self._closed:
                busy = {job.vm_moref for job in self._running.values()}
                for job in self._queue:
                    if job.vm_moref not in busy:
                        self._queue.remove(job)
                        self._running[job.job_id] = job
                        return job
                self._changed.wait(_WAIT_S)
            return None
