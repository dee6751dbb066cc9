"""Requests are checked against their declared rules before a servicer sees them."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc

from hub.services.request_rules import check_request
from shared.grpc_errors import status_from

# Streams of requests, of agents and uploads, have protocols of their own.
PACKAGE: Final = "/sendense.v1."


class RuleInterceptor(grpc.ServerInterceptor):
    """Answers INVALID_ARGUMENT for the servicer when a request violates a rule."""

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The method's handler, behind the check of its request."""
        handler = continuation(handler_call_details)
        if (
            handler is None
            or handler.request_streaming
            or not handler_call_details.method.startswith(PACKAGE)
        ):
            return handler
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                _checked_stream(handler.unary_stream), **codecs
            )
        assert handler.unary_unary is not None
        return grpc.unary_unary_rpc_method_handler(_checked(handler.unary_unary), **codecs)


def _checked(answer: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
    def checked(request: Any, context: grpc.ServicerContext) -> Any:
        with status_from(context):
            check_request(request)
        return answer(request, context)

    return checked


def _checked_stream(
    answer: Callable[[Any, grpc.ServicerContext], Iterator[Any]],
) -> Callable[..., Iterator[Any]]:
    def checked(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        with status_from(context):
            check_request(request)
        yield from answer(request, context)

    return checked
