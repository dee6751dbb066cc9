"""Ends the jobs that nobody else ends: owed, or left by their agents for too long.

One thread looks every half minute. What cannot be done now, for the catalog or
a repository is away, is done at a later look. A job whose lease is over is offered to
its agent again, for as long as the hub's patience lasts.
"""

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from hub.catalog.end_job import LiveJob, live_jobs
from hub.catalog.queries import find_job
from hub.errors import AgentStayedAway, JobNotFound, JobStalled
from hub.jobs import dispatch
from hub.jobs.complete import complete_left
from hub.jobs.end import cancel_live, end_or_owe, fail_job, tell_to_cancel, tell_to_let_go
from hub.jobs.left_jobs import look_again
from hub.jobs.parts import Parts
from hub.jobs.removals import begin_removals
from hub.jobs.resume import resume
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
        self._told: set[str] = set()
        self._offered_at: dict[str, float] = {}
        self._queued_again_since: dict[str, float] = {}
        self._nowhere: set[str] = set()

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
            self._pay(job_id, event, error)
        if self._parts.recovery.unseen and not self._stopping.is_set():
            look_again(self._parts)
        # The leases of queued jobs depend on whether their agents are there.
        dispatch.hand_out(self._parts)
        with self._parts.catalog.read() as session:
            jobs = live_jobs(session)
        jobs = [job for job in self._without_unseen(jobs) if not self._is_settled(job)]
        self._adopt(jobs)
        self._parts.uploads.expire(self._parts.patience.part_s)
        self._parts.reads.expire(self._parts.patience.part_s)
        self._look_after(jobs)
        if not self._stopping.is_set():
            begin_removals(self._parts)

    def _pay(self, job_id: str, event: Event, error: SendenseError) -> None:
        """Record an owed end, and have the agent clean up."""
        if self._stopping.is_set():
            return
        try:
            with self._parts.catalog.read() as session:
                site = find_job(session, job_id).context.site
        except JobNotFound:
            self._parts.owed.paid(job_id)
            return
        held = self._parts.agents.serves(site, job_id)
        end_or_owe(self._parts, job_id, event, error)
        if held:
            tell_to_cancel(self._parts, site, job_id, str(error))
        else:
            tell_to_let_go(self._parts, site, job_id)

    def _without_unseen(self, jobs: Sequence[LiveJob]) -> list[LiveJob]:
        """Nothing is done for jobs of which nobody knows whether they were completed."""
        unseen = self._parts.recovery.unseen
        return [job for job in jobs if job.job_id not in unseen]

    def _is_settled(self, job: LiveJob) -> bool:
        """Whether nothing is to be waited for any more: its end is wanted, or all of it is stored."""
        parts, job_id = self._parts, job.job_id
        if job.cancel_reason is not None:
            # Whoever asked for it may have been kept from carrying it out.
            if not parts.deadlines.runs(job_id) and not self._stopping.is_set():
                cancel_live(parts, job.site, job_id, job.cancel_reason)
            return True
        told = job.is_sealed and parts.completions.warnings(job_id) is not None
        left = job.is_read and self._has_other_agent(job)
        return (told or left) and self._complete(job)

    def _has_other_agent(self, job: LiveJob) -> bool:
        """Whether the site's agent is there, and is not the one that has the job."""
        agents = self._parts.agents
        return agents.presence(job.site).connected and not agents.serves(job.site, job.job_id)

    def _complete(self, job: LiveJob) -> bool:
        """Complete a job that was read. False when it cannot be done now."""
        if self._stopping.is_set() or not complete_left(self._parts, job.job_id):
            return False
        tell_to_let_go(self._parts, job.site, job.job_id)
        return True

    def _adopt(self, jobs: Sequence[LiveJob]) -> None:
        """Jobs that nobody looks after. Seen twice: a new job is committed before it is queued."""
        queued = self._parts.queue.positions()
        nowhere = {
            job.job_id: job
            for job in jobs
            if job.job_id not in queued and not self._parts.leases.holds(job.job_id)
        }
        for job_id in sorted(self._nowhere & nowhere.keys()):
            if nowhere[job_id].status is Status.PENDING:
                dispatch.enqueue(self._parts, job_id)
            else:
                self._parts.leases.begin_if_none(job_id)
        self._nowhere = set(nowhere)

    def _look_after(self, jobs: Sequence[LiveJob]) -> None:
        live = {job.job_id for job in jobs}
        pending = {job.job_id for job in jobs if job.status is Status.PENDING}
        over = self._parts.leases.over()
        self._told &= over.keys()
        self._offered_at = {one: at for one, at in self._offered_at.items() if one in live}
        self._queued_again_since = {
            one: since for one, since in self._queued_again_since.items() if one in pending
        }
        for job in jobs:
            if job.job_id in over and not self._stopping.is_set():
                self._look_at(job, over[job.job_id])

    def _look_at(self, job: LiveJob, over_s: float) -> None:
        """A job whose lease has been over for so long."""
        job_id, site = job.job_id, job.site
        if job_id not in self._told:
            self._told.add(job_id)
            self._parts.metrics.leases_over.inc()
            _log.warning("job_without_sign_of_life", job_id=job_id, site=site, status=job.status)
        connected = self._parts.agents.presence(site).connected
        if over_s > self._parts.patience.resume_wait_s:
            self._give_up(job, over_s, connected=connected)
        elif connected:
            self._offer(job)

    def _give_up(self, job: LiveJob, over_s: float, *, connected: bool) -> None:
        if job.is_read:
            if self._complete(job):
                return
            # It is a restore point but for its facts: its repository gets as long again.
            if over_s < 2 * self._parts.patience.resume_wait_s:
                return
        silent_s = round(over_s + self._parts.leases.lease_s)
        if connected:
            fail_job(self._parts, job.site, job.job_id, JobStalled(job.job_id, silent_s))
        else:
            error = AgentStayedAway(job.site, job.job_id, silent_s)
            end_or_owe(self._parts, job.job_id, Event.FAILED, error)

    def _offer(self, job: LiveJob) -> None:
        """Ask the agent to take the job, once in the time of a lease."""
        if job.is_read:
            self._complete(job)  # its snapshot may be gone: there is nothing to resume
            return
        now, job_id = self._clock(), job.job_id
        offered_at = self._offered_at.get(job_id)
        if offered_at is not None and now - offered_at < self._parts.leases.lease_s:
            return
        self._offered_at[job_id] = now
        if job.status is Status.RUNNING:
            # The lease stays over until the agent answers: to be asked is no sign of life.
            resume(self._parts, job.site, job_id)
            return
        since = self._queued_again_since.setdefault(job_id, now)
        if now - since > self._parts.patience.resume_wait_s:
            error = JobStalled(job_id, round(now - since))
            fail_job(self._parts, job.site, job_id, error)
            return
        dispatch.enqueue(self._parts, job_id)
        dispatch.hand_out(self._parts)
