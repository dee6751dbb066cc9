"""Whether the hub serves, asked as load balancers ask: grpc.health.v1."""

from contextlib import closing
from typing import Final, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.errors import HubNotServing
from sendense.channel import open_channel

DEADLINE_S: Final = 5.0


def check_hub(hub_address: str, deadline_s: float = DEADLINE_S) -> None:
    """Ask once. Raises HubNotServing."""
    with closing(open_channel(hub_address)) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=deadline_s
            )
        except grpc.RpcError as error:
            call = cast(grpc.Call, error)  # what grpcio raises is both; its types say one
            raise HubNotServing(hub_address, _problem(call, deadline_s)) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise HubNotServing(hub_address, f"it says {status}")


def _problem(call: grpc.Call, deadline_s: float) -> str:
    match call.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer within {deadline_s:g} s"
        case grpc.StatusCode.UNIMPLEMENTED:
            return "what answers there is no hub"
        case code:
            return call.details() or str(code.name)
