"""SendenseError to and from gRPC status with google.rpc.ErrorInfo."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from shared.errors import InvalidArgument, SendenseError

DOMAIN = "sendense"
_log = structlog.get_logger(__name__)


def status_of(error: SendenseError) -> status_pb2.Status:
    """The google.rpc.Status of an error: code, sentence, ErrorInfo, field violation if it is one."""
    details = [
        _packed(
            error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata=error.facts())
        )
    ]
    if isinstance(error, InvalidArgument):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.problem
        )
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    number: int = error.status.value[0]
    return status_pb2.Status(
        code=number,
        message=str(error),
        details=details,
    )


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
