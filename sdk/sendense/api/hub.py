"""The hub itself: how it came up."""

from sendense.api.connection import Connection
from sendense.requests import build
from sendense.v1 import hub_pb2, hub_pb2_grpc


class HubCalls(Connection):
    """HubService."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        super().__init__(address, timeout_s=timeout_s)
        self._hub = hub_pb2_grpc.HubServiceStub(self._channel)

    def recovery_report(self) -> hub_pb2.RecoveryReportResponse:
        """What the hub found of its last run when it started, and what it did about it."""
        return self._call(self._hub.RecoveryReport, build(hub_pb2.RecoveryReportRequest))
