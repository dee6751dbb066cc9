"""gRPC errors of calls to the hub, and the agent's errors as messages to the hub."""

from typing import cast

import grpc
import structlog
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from agent.errors import HubRefused, HubUnreachable
from sendense.v1 import backup_pb2
from shared.errors import SendenseError

_log = structlog.get_logger(__name__)


def hub_error(error: grpc.RpcError) -> SendenseError:
    """The hub's own refusal (with its ErrorInfo's reason), or HubUnreachable."""
    call = cast(grpc.Call, error)  # what grpcio raises is both; its types say one
    code, message = call.code(), call.details() or "no details"
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        status = None  # the details contradict the status line: worth nothing
    if status is not None:
        info = error_details_pb2.ErrorInfo()
        for detail in status.details:
            if detail.Unpack(info):
                return HubRefused(info.reason, message)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return HubUnreachable(message)
    return HubRefused(code.name, message)


def backup_error(error: BaseException) -> backup_pb2.BackupError:
    """Why a job failed, as the hub records it. What nobody foresaw is logged with its traceback."""
    if isinstance(error, HubRefused):
        return backup_pb2.BackupError(reason=error.reason, message=error.message)
    if isinstance(error, HubUnreachable):
        return backup_pb2.BackupError(reason=error.code, message=f"{error}; start the backup again")
    if isinstance(error, SendenseError):
        return backup_pb2.BackupError(reason=error.code, message=str(error))
    _log.error("unexpected_error", exc_info=error)
    return backup_pb2.BackupError(
        reason="INTERNAL",
        message=f"unexpected {type(error).__name__} in the agent; its log has the details",
    )
