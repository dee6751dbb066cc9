"""Errors carry their facts to the wire and back to words."""

from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any, ClassVar

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from shared.errors import InvalidArgument, SendenseError
from shared.grpc_errors import DOMAIN, status_from, status_of


@dataclass(eq=False)
class _BoxFull(SendenseError):
    code: ClassVar[str] = "BOX_FULL"
    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.RESOURCE_EXHAUSTED
    text: ClassVar[str] = "box {box} is full after {items}; empty it"

    box: str
    items: tuple[str, ...] = ()
    owner: str | None = None


def test_message_and_facts_come_from_the_fields() -> None:
    error = _BoxFull("b1", ("pen", "cup"))
    assert str(error) == "box b1 is full after ('pen', 'cup'); empty it"
    assert error.facts() == {"box": "b1", "items": "pen,cup"}


def test_status_names_reason_and_field_of_an_invalid_argument() -> None:
    status = status_of(InvalidArgument("page_size", "must be at most 1000, is 5000"))
    info, violation = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(violation)
    assert (info.reason, info.domain) == ("INVALID_ARGUMENT", DOMAIN)
    assert violation.field_violations[0].field == "page_size"
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize("letter", ["x", "ä", "\U0001f4be", "\ud800"])
def test_status_fits_into_trailers_when_a_caller_sent_too_much(letter: str) -> None:
    status = status_of(_BoxFull(letter * 20_000, (letter * 20_000,), letter * 20_000))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert len(status.message.encode()) <= 1024
    assert set(info.metadata) == {"box", "items", "owner"}
    # As trailers: one percent-encoded, the other in base64.
    assert 3 * len(status.message.encode()) + status.ByteSize() * 4 // 3 < 8000
    invalid = status_of(InvalidArgument("page_token", letter * 20_000))
    assert 3 * len(invalid.message.encode()) + invalid.ByteSize() * 4 // 3 < 8000


class _Echo(grpc.GenericRpcHandler):
    """Raises, inside `status_from`, what the test asks for."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        def respond(request: bytes, context: grpc.ServicerContext) -> bytes:
            with status_from(context):
                raise self._error
            return b""

        return grpc.unary_unary_rpc_method_handler(respond)


@pytest.fixture
def call(request: pytest.FixtureRequest) -> Iterator[grpc.RpcError]:
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=(_Echo(request.param),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/x/Y")(b"", timeout=10)
        yield caught.value
    server.stop(0).wait(5)


@pytest.mark.parametrize("call", [_BoxFull("b2")], indirect=True)
def test_a_sendense_error_reaches_the_caller_with_reason_and_metadata(call: grpc.RpcError) -> None:
    status = rpc_status.from_call(call)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("BOX_FULL", {"box": "b2", "items": ""})
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


@pytest.mark.parametrize("call", [ZeroDivisionError("secret detail")], indirect=True)
def test_a_defect_reaches_the_caller_as_internal_without_details(call: grpc.RpcError) -> None:
    assert call.code() is grpc.StatusCode.INTERNAL  # type: ignore[attr-defined]
    assert "secret" not in (call.details() or "")  # type: ignore[attr-defined]
