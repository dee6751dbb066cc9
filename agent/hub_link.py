"""The agent's link to the hub: a session for as long as the agent runs, and jobs from its commands."""

import random
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Final

import grpc
import structlog
from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)
from tenacity.nap import sleep_using_event

from agent import job_events
from agent.backup_vm import BackupJob
from agent.errors import (
    AgentStopping,
    HubMisbehaved,
    HubRefused,
    HubUnreachable,
    JobCancelled,
    SessionLost,
)
from agent.hub_errors import backup_error
from agent.inventory import InventoryReporter
from agent.job_runner import JobRunner
from agent.job_tools import JobTools
from agent.job_warnings import JobWarnings
from agent.outbox import Outbox
from agent.session import Session
from sendense.v1 import agent_session_pb2 as pb

LONGEST_PAUSE_S: Final = 30.0

_log = structlog.get_logger(__name__)


class HubLink:
    """Connects, serves the session, reconnects; `run` in one thread, `stop` from any other.

    Jobs go on when a session ends, and what they have to tell is told in the next one.
    A hub that does not say that it closes jobs has given them up by then: they are cancelled.
    """

    def __init__(
        self,
        hub_address: str,
        open_channel: Callable[[], grpc.Channel],
        register: pb.AgentRegister,
        runner: JobRunner,
        tools: JobTools,
        inventory: InventoryReporter,
    ) -> None:
        self._hub_address = hub_address
        self._open_channel = open_channel
        self._register = register
        self._runner = runner
        self._tools = tools
        self._inventory = inventory
        self._outbox = Outbox()
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._stopping = threading.Event()
        self._problem: str | None = None

    def run(self) -> None:
        """Serve until `stop`. Pauses between attempts grow from a fraction of a second to 30 s."""
        while not self._stopping.is_set():
            attempts = Retrying(
                retry=retry_if_exception_type((HubUnreachable, HubRefused, HubMisbehaved)),
                wait=wait_exponential(multiplier=0.3, max=LONGEST_PAUSE_S) + wait_random(0, 0.3),
                sleep=sleep_using_event(self._stopping),
                stop=stop_when_event_set(self._stopping),
                before_sleep=self._log_failed_attempt,
            )
            try:
                attempts(self._serve_session)
            except RetryError:
                return  # stopped
            # A session that stood and ended is no failed attempt; still, a hub
            # that ends every session must not be called in a tight loop.
            self._stopping.wait(0.2 + random.random())

    def stop(self, clean_up_s: float, farewell_s: float) -> bool:
        """End all jobs, wait for their snapshots to be removed, report, end the session.

        False when a job was still cleaning up after `clean_up_s`.
        """
        self._stopping.set()
        self._runner.cancel_all(AgentStopping(self._register.site))
        clean = self._runner.wait_idle(clean_up_s)
        with self._lock:
            session = self._session
        if session is not None:
            session.finish(farewell_s)
        return clean

    def _serve_session(self) -> None:
        """One session from dialling to its end. Raises when the hub did not register the agent."""
        with closing(self._open_channel()) as channel:
            with self._lock:
                if self._stopping.is_set():
                    return
                register = pb.AgentRegister(job_ids=sorted(self._known_job_ids()))
                register.MergeFrom(self._register)
                session = self._session = Session(channel, register, self._runner.alive_job_ids)

            agent_id = ""

            def registered(answer: pb.SessionRegistered) -> None:
                nonlocal agent_id
                agent_id, self._problem = answer.agent_id, None
                _log.info("hub_connected", hub=self._hub_address, agent_id=agent_id)
                self._hub_came(session, answer)

            problem = "the agent's thread of it failed"
            try:
                ended = session.run(registered, lambda command: self._obey(agent_id, command))
                problem = str(ended) if ended is not None else "the hub ended it"
                if not self._stopping.is_set():
                    _log.warning("hub_session_lost", hub=self._hub_address, problem=problem)
            finally:
                self._outbox.detach()
                self._inventory.detach()
                self._tools.presence.went()

    def _known_job_ids(self) -> set[str]:
        # In this order: a job's end is in the outbox before the runner lets go of it.
        at_work = self._runner.alive_job_ids()
        return at_work | self._outbox.job_ids()

    def _hub_came(self, session: Session, answer: pb.SessionRegistered) -> None:
        if not answer.closes_jobs:
            problem = "the hub ends jobs with the session that they began in"
            self._runner.cancel_all(SessionLost(self._hub_address, problem))
        # Sweeps begin with this; what an earlier run left of these jobs may yet be needed.
        left = set(answer.live_job_ids) - self._known_job_ids()
        self._tools.sweeper.registered(answer.agent_id, left)
        self._outbox.attach(session.send, closes_jobs=answer.closes_jobs)
        self._inventory.attach(session.send)
        self._tools.presence.came()

    def _obey(self, agent_id: str, command: pb.SessionResponse) -> None:
        match command.WhichOneof("command"):
            case "start_job":
                self._take_job(
                    BackupJob(command.start_job, agent_id, self._tools, self._outbox.post)
                )
            case "resume_job":
                resume = command.resume_job
                self._take_job(
                    BackupJob(resume.start, agent_id, self._tools, self._outbox.post, resume=resume)
                )
            case "job_plan":
                self._outbox.planned(command.job_plan.job_id)
                if job := self._job(command.job_plan.job_id, "job_plan"):
                    job.plan(command.job_plan)
            case "cancel_job":
                reason = command.cancel_job.reason or "the hub gave no reason"
                self._cancel_job(command.cancel_job.job_id, JobCancelled(reason))
            case "job_closed":
                self._close_job(command.job_closed.job_id)
            case "refresh_inventory":
                self._inventory.refresh()
            case other:
                # A newer hub's command; what it meant for it will time out there.
                _log.warning("hub_command_unknown", command=other)

    def _take_job(self, job: BackupJob) -> None:
        if job.job_id in self._known_job_ids():
            return  # it runs, or the hub has yet to hear of its end
        self._runner.add(job)
        # After adding: its snapshot is never nobody's.
        self._tools.sweeper.release(job.job_id)
        # Asked after adding: a stop that came in between has not seen this job.
        if self._stopping.is_set():
            self._runner.cancel(job, AgentStopping(self._register.site))

    def _cancel_job(self, job_id: str, error: JobCancelled) -> None:
        if self._tools.sweeper.release(job_id):
            # An earlier run's: there is nothing to end but its snapshot, which is swept.
            _log.info("job_of_earlier_run_cancelled", job_id=job_id, reason=error.reason)
            self._outbox.post(job_events.failed(job_id, error, JobWarnings()))
        elif job := self._job(job_id, "cancel_job"):
            _log.info("job_cancelled", job_id=job_id, reason=error.reason)
            self._runner.cancel(job, error)

    def _close_job(self, job_id: str) -> None:
        self._outbox.closed(job_id)
        self._tools.sweeper.release(job_id)
        job = self._runner.find(job_id)
        if job is not None and not job.is_over and job.cancellation.error is None:
            _log.warning("job_closed_before_its_end", job_id=job_id)
            self._runner.cancel(job, JobCancelled("the hub has ended the job"))

    def _job(self, job_id: str, command: str) -> BackupJob | None:
        job = self._runner.find(job_id)
        if job is None:
            # It has just ended, and its last event is on the way to the hub.
            _log.info("command_for_ended_job", command=command, job_id=job_id)
        return job

    def _log_failed_attempt(self, state: RetryCallState) -> None:
        """Log a problem when it is another one than before, not on every attempt."""
        error = state.outcome.exception() if state.outcome else None
        if error is None:
            return
        told = backup_error(error)
        # No job's: nobody has to start anything again.
        message = str(error) if isinstance(error, HubUnreachable) else told.message
        if told.reason != self._problem:
            self._problem = told.reason
            _log.warning(
                "hub_not_connected",
                hub=self._hub_address,
                reason=told.reason,
                error=message,
                next_step="trying again for as long as the agent runs",
            )
