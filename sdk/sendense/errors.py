"""The errors of the client: one class per thing a caller can do about it.

Every error carries a stable `reason` (UPPER_SNAKE, as in google.rpc.ErrorInfo), a
`message` for people and `metadata`. gRPC's own exceptions never leave the package.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class SendenseError(Exception):
    """Base of every error the client raises on purpose."""

    default_reason: ClassVar[str] = "FAILED"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata: dict[str, str] = dict(metadata or {})


class HubUnavailable(SendenseError):
    """The hub cannot be reached, went away or did not answer in time. Trying later may help."""

    default_reason = "HUB_UNAVAILABLE"


class Unavailable(SendenseError):
    """The hub answered, but something it needs is away (AGENT_AWAY). Trying later may help."""

    default_reason = "UNAVAILABLE"


class NotFound(SendenseError):
    """The VM, job, disk, context, repository or agent named does not exist."""

    default_reason = "NOT_FOUND"


class AlreadyExists(SendenseError):
    """Something of that kind exists or runs already; the metadata names it."""

    default_reason = "ALREADY_EXISTS"


class InvalidArgument(SendenseError):
    """Values of the request cannot be used; `violations` says which and why: (field, problem)."""

    default_reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.violations: list[tuple[str, str]] = list(violations)


class FailedPrecondition(SendenseError):
    """The request is fine, the state of things is not: repeat it when that has changed."""

    default_reason = "FAILED_PRECONDITION"


class ResourceExhausted(SendenseError):
    """Something is full: a repository's disk, a limit."""

    default_reason = "RESOURCE_EXHAUSTED"


class DataLoss(SendenseError):
    """Backed-up data is damaged, in the repository or on its way. Nothing was restored."""

    default_reason = "DATA_LOSS"


class WaitTimeout(SendenseError):
    """The job did not end within the time given to `Client.wait`; it goes on."""

    default_reason = "WAIT_TIMEOUT"


class TargetUnusable(SendenseError):
    """The file to restore to cannot be used; the message says why. What existed is untouched."""

    default_reason = "TARGET_UNUSABLE"


class TargetExists(TargetUnusable):
    """The file to restore to exists, and overwriting it was not asked for."""

    default_reason = "TARGET_EXISTS"


class TargetWriteFailed(SendenseError):
    """Writing the restored disk failed (disk full, I/O error); the partial file was removed."""

    default_reason = "TARGET_WRITE_FAILED"


class HubError(SendenseError):
    """The hub failed in a way that no other class describes; its log knows more."""

    default_reason = "INTERNAL"


_BY_STATUS: dict[grpc.StatusCode, type[SendenseError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.DATA_LOSS: DataLoss,
}


def error_from(error: grpc.RpcError, *, address: str = "the hub") -> SendenseError:
    """The typed error of a failed RPC. `address` names the hub in transport errors."""
    call = _call_of(error)
    code = call.code() if call else grpc.StatusCode.UNKNOWN
    text = (call.details() if call else None) or str(error)
    info, violations = _details_of(call)
    metadata = dict(info.metadata) if info else {}
    reason = info.reason if info else None
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and info is None:
        return HubUnavailable(f"hub {address} did not answer in time", reason="HUB_TIMEOUT")
    if code is grpc.StatusCode.UNAVAILABLE:
        if info is None:
            return HubUnavailable(
                f"the hub cannot be reached at {address}: {_why_unreachable(text)}"
            )
        return Unavailable(text, reason=reason, metadata=metadata)
    if code is grpc.StatusCode.CANCELLED:
        return HubError(f"the request was cancelled: {text}", reason="CANCELLED")
    kind = _BY_STATUS.get(code, HubError)
    if issubclass(kind, InvalidArgument):
        return kind(text, reason=reason, metadata=metadata, violations=violations)
    # A status from gRPC itself (UNIMPLEMENTED, UNKNOWN, ...) has no reason but its name.
    return kind(text, reason=reason or code.name, metadata=metadata)


def _why_unreachable(text: str) -> str:
    """gRPC's report of a connection that could not be made, without its layers."""
    if "Connection refused" in text:
        return "connection refused; is the hub running?"
    if "Domain name not found" in text or "hostname lookup error" in text:
        return "no such host is known"
    if "SETTINGS frame" in text:
        if "timed out" in text:
            return "it takes connections but does not answer; does it hang, or is it overloaded?"
        return "what listens there is no hub"
    if "Network is unreachable" in text or "No route to host" in text:
        return "no network leads there"
    return text.removeprefix("failed to connect to all addresses; last error: ")


@contextmanager
def typed_errors(address: str) -> Iterator[None]:
    """Translate gRPC errors raised inside into the classes above."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from(error, address=address) from error
    except ValueError as error:
        # gRPC says so when a channel is used after its end; anything else is a defect.
        if "closed channel" not in str(error):
            raise
        raise HubUnavailable("the client is closed", reason="CLIENT_CLOSED") from error


def _call_of(error: object) -> grpc.Call | None:
    # gRPC raises objects that are error and call in one; its types do not say so.
    return error if isinstance(error, grpc.Call) else None


def _details_of(
    call: grpc.Call | None,
) -> tuple[error_details_pb2.ErrorInfo | None, list[tuple[str, str]]]:
    """ErrorInfo and field violations of a status; nothing when it has none or cannot be read."""
    if call is None:
        return None, []
    try:
        status = rpc_status.from_call(call)
    except (ValueError, DecodeError):
        # Details that contradict the status or are no status: the status itself still counts.
        return None, []
    info: error_details_pb2.ErrorInfo | None = None
    violations: list[tuple[str, str]] = []
    for packed in status.details if status else ():
        if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(packed.value)
        elif packed.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            request = error_details_pb2.BadRequest.FromString(packed.value)
            violations += [(v.field, v.description) for v in request.field_violations]
    return info, violations
