"""gRPC errors of calls to the hub, and the agent's errors as messages to the hub."""

from typing import Final, cast

import grpc
import structlog
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from agent.errors import (
    BaseDigestsOverdue,
    DiskGivenUp,
    HubRefused,
    HubUnreachable,
    UploadStalled,
)
from sendense.v1 import backup_pb2
from shared.errors import SendenseError

# Refusals after which what is durable stays, besides all that are UNAVAILABLE
# (protos/sendense/v1/upload.proto).
RETRYABLE_REASONS: Final = frozenset(
    {
        "CATALOG_UNAVAILABLE",
        "FRAME_CORRUPT",
        "HUB_STOPPING",
        "TOO_MANY_STREAMS",
        "UPLOAD_STALLED",
        "UPLOAD_SUPERSEDED",
        "UPLOAD_TRUNCATED",
    }
)

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
                retryable = code is grpc.StatusCode.UNAVAILABLE or info.reason in RETRYABLE_REASONS
                return HubRefused(info.reason, message, retryable=retryable)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return HubUnreachable(message)
    # Without details it is gRPC's own word, or a proxy's.
    return HubRefused(code.name, message)


def passes(error: BaseException) -> bool:
    """Whether a disk's planning or upload that ended so may be tried again: the hub was away."""
    if isinstance(error, HubRefused):
        return error.retryable
    return isinstance(error, (HubUnreachable, UploadStalled, BaseDigestsOverdue))


def hub_reason(error: BaseException) -> str:
    """The stable code that a job with this error fails with."""
    if isinstance(error, (HubRefused, DiskGivenUp)):
        return error.reason
    return error.code if isinstance(error, SendenseError) else "INTERNAL"


def backup_error(error: BaseException) -> backup_pb2.BackupError:
    """Why a job failed, as the hub records it. What nobody foresaw is logged with its traceback."""
    if isinstance(error, HubUnreachable):
        return backup_pb2.BackupError(reason=error.code, message=f"{error}; start the backup again")
    if isinstance(error, SendenseError):
        return backup_pb2.BackupError(reason=hub_reason(error), message=str(error))
    _log.error("unexpected_error", exc_info=error)
    return backup_pb2.BackupError(
        reason="INTERNAL",
        message=f"unexpected {type(error).__name__} in the agent; its log has the details",
    )
