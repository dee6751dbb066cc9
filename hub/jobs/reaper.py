"""Ends the jobs that nobody else ends: left by a session, owed, or stalled; begins removals.

One thread looks every half minute. What cannot be done now, for the catalog or
a repository is away, is done at a later look.
"""

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from hub.catalog.end_job import LiveJob, live_jobs
from hub.errors import AgentLost, JobStalled
from hub.jobs.end import end_or_owe, fail_job
from hub.jobs.parts import Parts
from hub.jobs.removals import begin_removals
from hub.jobs.states import Event, Status
from shared.errors import SendenseError

JOIN_S = 2.0
_log = structlog.get_logger(__name__)


class Reaper:
    """`sweep` is of one thread: the reaper's own, between `start` and `stop`."""

    def __init__(self, parts: Parts, clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)
        self._unserved: set[str] = set()
        self._idle_since: dict[str, float] = {}

    def start(self) -> None:
        """Look every so often from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. A look that waits for the catalog is not waited for long."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._stopping.wait(self._parts.patience.sweep_interval_s):
            try:
                self.sweep()
            except SendenseError as error:
                _log.warning("sweep_failed", error=str(error))
            except Exception:  # noqa: BLE001 - the next look may go better
                _log.exception("sweep_failed")

    def sweep(self) -> None:
        """Look once. Raises CatalogUnavailable."""
        for job_id, (event, error) in self._parts.owed.items():
            self._end(job_id, event, error)
        with self._parts.catalog.read() as session:
            jobs = live_jobs(session)
        self._end_unserved(jobs)
        self._parts.uploads.expire(self._parts.patience.part_s)
        self._parts.reads.expire(self._parts.patience.part_s)
        self._end_stalled(jobs)
        if not self._stopping.is_set():
            begin_removals(self._parts)

    def _end(self, job_id: str, event: Event, error: SendenseError) -> None:
        if not self._stopping.is_set():
            end_or_owe(self._parts, job_id, event, error)

    def _end_unserved(self, jobs: Sequence[LiveJob]) -> None:
        """Jobs that no session knows of. Seen twice: a new job is committed before it is sent."""
        unserved = {
            job.job_id: job.site
            for job in jobs
            if not self._parts.agents.serves(job.site, job.job_id)
        }
        for job_id in sorted(self._unserved & unserved.keys()):
            self._end(job_id, Event.FAILED, AgentLost(unserved[job_id]))
        self._unserved = set(unserved)

    def _end_stalled(self, jobs: Sequence[LiveJob]) -> None:
        """Jobs whose agent uploads nothing, and does not say either that it is at work on them.

        Agents that name no jobs: one that waits in its agent's queue may upload nothing.
        """
        uploading = self._parts.uploads.job_ids()
        busy = {job.site for job in jobs if job.job_id in uploading or job.is_sealed}
        now, limit_s = self._clock(), self._parts.patience.upload_s
        idle_since: dict[str, float] = {}
        for job in jobs:
            queued = job.status is Status.PENDING and job.site in busy
            if job.job_id in uploading or job.is_sealed or queued:
                continue
            # It may wait long for a host's connections, or read long before it uploads.
            if self._parts.agents.works_on(job.site, job.job_id):
                continue
            since = idle_since[job.job_id] = self._idle_since.get(job.job_id, now)
            if now - since > limit_s:
                error = JobStalled(job.job_id, round(limit_s))
                fail_job(self._parts, job.site, job.job_id, error)
        self._idle_since = idle_since
