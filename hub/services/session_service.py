"""AgentSessionService."""

from collections.abc import Iterator

import grpc

from hub.jobs.parts import Parts
from hub.jobs.sessions import HEARTBEAT_INTERVAL_S, serve_session
from hub.services.stream_slots import StreamSlots
from sendense.v1 import agent_session_pb2 as pb
from sendense.v1.agent_session_pb2_grpc import AgentSessionServiceServicer
from shared.grpc_errors import status_from


class AgentSessionService(AgentSessionServiceServicer):
    def __init__(
        self,
        parts: Parts,
        slots: StreamSlots,
        heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S,
    ) -> None:
        self._parts = parts
        self._slots = slots
        self._heartbeat_interval_s = heartbeat_interval_s

    def Session(
        self, request_iterator: Iterator[pb.SessionRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.SessionResponse]:
        with status_from(context):
            self._slots.take("session", context)
            yield from serve_session(
                self._parts, request_iterator, heartbeat_interval_s=self._heartbeat_interval_s
            )
