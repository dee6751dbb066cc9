"""One session with the hub: register, then events out and commands in, until it ends."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import grpc
import structlog

from agent.bounded_queue import BoundedQueue, QueueClosed, QueueEnded
from agent.errors import HubMisbehaved
from agent.hub_errors import hub_error
from sendense.v1 import agent_session_pb2 as pb
from sendense.v1.agent_session_pb2_grpc import AgentSessionServiceStub
from shared.errors import SendenseError

REGISTER_WAIT_S: Final = 30.0
EVENTS_WAITING: Final = 1000

_log = structlog.get_logger(__name__)


class Session:
    """`run` owns the stream; `send`, `finish` and `cancel` may be called from any thread.

    `jobs_at_work` gives the ids that heartbeats name; it is called in gRPC's thread and
    must not block.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        register: pb.AgentRegister,
        jobs_at_work: Callable[[], Iterable[str]],
    ) -> None:
        self._register = register
        self._jobs_at_work = jobs_at_work
        self._events = BoundedQueue[pb.SessionRequest](EVENTS_WAITING)
        self._heartbeat_s = 5.0
        self._ended = threading.Event()
        self._registered = False
        self._call = AgentSessionServiceStub(channel).Session(self._requests())

    def run(
        self,
        on_registered: Callable[[pb.SessionRegistered], None],
        on_command: Callable[[pb.SessionResponse], None],
    ) -> SendenseError | None:
        """Serve the session until it ends; returns why, None for the hub's orderly end.

        The callbacks get the registration and every command after it, in this
        thread; they must not block. Raises HubRefused, HubUnreachable, HubMisbehaved when registering failed.
        """
        # gRPC offers no deadline for one answer of a stream.
        overdue = threading.Timer(REGISTER_WAIT_S, self._call.cancel)
        overdue.daemon = True
        try:
            overdue.start()
            try:
                first = next(self._call)
            except StopIteration:
                raise HubMisbehaved("it ended the session before registering the agent") from None
            except grpc.RpcError as error:
                raise hub_error(error) from error
            finally:
                overdue.cancel()
            if first.WhichOneof("command") != "registered":
                raise HubMisbehaved("its first answer to an agent did not register it")
            if first.registered.heartbeat_interval_s:
                # Twice as often as asked for: one late heartbeat must not end a session.
                self._heartbeat_s = first.registered.heartbeat_interval_s / 2
            if not first.registered.agent_id:
                raise HubMisbehaved("it registered the agent without an id")
            self._registered = True
            on_registered(first.registered)
            try:
                for command in self._call:
                    on_command(command)
            except grpc.RpcError as error:
                return hub_error(error)
            return None
        finally:
            self._ended.set()
            self._events.close()
            self._call.cancel()

    def send(self, event: pb.SessionRequest) -> None:
        """Hand an event to the stream. When the session is over it goes nowhere, and that is logged."""
        try:
            taken = self._events.offer(event)
        except QueueClosed:
            _log.info("event_dropped_session_over", event_kind=event.WhichOneof("event"))
            return
        if not taken:
            _log.error("hub_takes_no_events", waiting=EVENTS_WAITING)
            self.cancel()

    def finish(self, timeout_s: float) -> None:
        """Send what waits, end the agent's side, and give the hub that long to end its own."""
        self._events.end()
        if not self._registered or not self._ended.wait(timeout_s):
            self.cancel()

    def cancel(self) -> None:
        """Break the stream."""
        self._call.cancel()

    def _requests(self) -> Iterator[pb.SessionRequest]:
        """The register message, then events as they come, and heartbeats in time among them.

        Events do not stand in for heartbeats: those alone name the jobs at work.
        """
        yield pb.SessionRequest(register=self._register)
        beaten_at = time.monotonic()
        while True:
            due_s = beaten_at + self._heartbeat_s - time.monotonic()
            try:
                event = self._events.get(due_s) if due_s > 0 else None
            except (QueueClosed, QueueEnded):
                return
            if event is None:
                beaten_at = time.monotonic()
                event = pb.SessionRequest(
                    heartbeat=pb.AgentHeartbeat(job_ids=sorted(self._jobs_at_work()))
                )
            yield event
