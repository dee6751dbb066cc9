"""SendenseError to and from gRPC status with google.rpc.ErrorInfo."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from shared.errors import InvalidArgument, InvalidRequest, SendenseError

DOMAIN = "sendense"
# An RPC's status travels in its trailers, of which peers take 8 KiB.
MESSAGE_BYTES = 1024
FACTS_BYTES = 2048
_log = structlog.get_logger(__name__)


def status_of(error: SendenseError) -> status_pb2.Status:
    """The google.rpc.Status of an error: code, sentence, ErrorInfo, field violations if any.

    What callers sent may be echoed in it, and is clipped: the sentence and each
    fact to 1 KiB of UTF-8, all facts together to 2 KiB.
    """
    facts = error.facts()
    fact_bytes = min(MESSAGE_BYTES, FACTS_BYTES // max(1, len(facts)))
    metadata = {name: clipped(value, fact_bytes) for name, value in facts.items()}
    details = [
        _packed(error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata=metadata))
    ]
    violated = _violations(error)
    if violated:
        each_bytes = min(MESSAGE_BYTES, FACTS_BYTES // (2 * len(violated)))
        details.append(
            _packed(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(
                            field=clipped(one.field, each_bytes),
                            description=clipped(one.problem, each_bytes),
                        )
                        for one in violated
                    ]
                )
            )
        )
    number: int = error.status.value[0]
    return status_pb2.Status(
        code=number,
        message=clipped(str(error), MESSAGE_BYTES),
        details=details,
    )


def _violations(error: SendenseError) -> Sequence[InvalidArgument]:
    if isinstance(error, InvalidArgument):
        return [error]
    return error.violations if isinstance(error, InvalidRequest) else []


def clipped(text: str, limit_bytes: int) -> str:
    """`text` if its UTF-8 has no more bytes than that; else its beginning and an ellipsis."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    return encoded[: limit_bytes - 3].decode(errors="ignore") + "…"


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def abort_with(context: grpc.ServicerContext, error: SendenseError) -> NoReturn:
    """End the RPC with the error's status. Raises what `context.abort_with_status` raises."""
    context.abort_with_status(rpc_status.to_status(status_of(error)))
    raise AssertionError("abort_with_status returned")


@contextmanager
def status_from(context: grpc.ServicerContext) -> Iterator[None]:
    """Translate a SendenseError raised inside into the RPC's status.

    Anything else is a defect: it is logged with its traceback, and the caller
    is told INTERNAL without details.
    """
    try:
        yield
    except SendenseError as error:
        abort_with(context, error)
    except grpc.RpcError:
        raise
    except Exception as error:
        if not context.is_active():
            raise
        _log.exception("rpc_failed_unexpectedly", error=str(error))
        abort_with(context, SendenseError())
