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
from agent.session import Session
from sendense.v1 import agent_session_pb2 as pb

LONGEST_PAUSE_S: Final = 30.0

_log = structlog.get_logger(__name__)


class HubLink:
    """Connects, serves the session, reconnects; `run` in one thread, `stop` from any other.

    When a session ends, its jobs are cancelled; their snapshots are removed in
    the jobs' own threads while the next session is being made.
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
                session = self._session = Session(
                    channel, self._register, self._runner.alive_job_ids
                )

            agent_id = ""

            def registered(given_id: str) -> None:
                nonlocal agent_id
                agent_id, self._problem = given_id, None
                _log.info("hub_connected", hub=self._hub_address, agent_id=agent_id)
                self._inventory.attach(session.send)
                self._tools.sweeper.registered(agent_id)

            problem = "the agent's thread of it failed"
            try:
                ended = session.run(
                    registered, lambda command: self._obey(session, agent_id, command)
                )
                problem = str(ended) if ended is not None else "the hub ended it"
                if not self._stopping.is_set():
                    _log.warning("hub_session_lost", hub=self._hub_address, problem=problem)
            finally:
                self._inventory.detach()
                self._runner.cancel_all(SessionLost(self._hub_address, problem))

    def _obey(self, session: Session, agent_id: str, command: pb.SessionResponse) -> None:
        match command.WhichOneof("command"):
            case "start_job":
                self._start_job(session, agent_id, command.start_job)
            case "job_plan":
                if job := self._job(command.job_plan.job_id, "job_plan"):
                    job.plan(command.job_plan)
            case "cancel_job":
                if job := self._job(command.cancel_job.job_id, "cancel_job"):
                    reason = command.cancel_job.reason or "the hub gave no reason"
                    _log.info("job_cancelled", job_id=job.job_id, reason=reason)
                    self._runner.cancel(job, JobCancelled(reason))
            case "refresh_inventory":
                self._inventory.refresh()
            case other:
                # A newer hub's command; what it meant for it will time out there.
                _log.warning("hub_command_unknown", command=other)

    def _start_job(self, session: Session, agent_id: str, start: pb.StartJob) -> None:
        job = BackupJob(start, agent_id, self._tools, session.send)
        self._runner.add(job)
        # Asked after adding: a stop that came in between has not seen this job.
        if self._stopping.is_set():
            self._runner.cancel(job, AgentStopping(self._register.site))

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
