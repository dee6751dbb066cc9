"""A deadline for streams of unknown length: the next message must come in time."""

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

import grpc

from sendense.errors import HubUnavailable

STALL_LIMIT_S: Final = 120.0

Response_co = TypeVar("Response_co", covariant=True)


class StreamCall(Protocol[Response_co]):
    """What the guard needs of a gRPC call."""

    def __iter__(self) -> Iterator[Response_co]: ...
    def cancel(self) -> object: ...


class StallGuard(Generic[Response_co]):
    """Cancels a call when the reader waits longer than `limit_s` for its next message.

    Only waiting counts: a slow local disk is no stall of the hub.
    """

    def __init__(
        self, call: StreamCall[Response_co], address: str, *, limit_s: float = STALL_LIMIT_S
    ) -> None:
        self._call = call
        self._address = address
        self._limit_s = limit_s
        self._waiting_since: float | None = None
        self._stalled = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="restore-stall", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join(timeout=self._limit_s)

    def responses(self) -> Iterator[Response_co]:
        """The call's messages. Raises HubUnavailable (HUB_STALLED) instead of waiting for ever."""
        responses = iter(self._call)
        while True:
            self._waiting_since = time.monotonic()
            try:
                response = next(responses)
            except StopIteration:
                return
            except grpc.RpcError as error:
                if not self._stalled:
                    raise
                raise HubUnavailable(
                    f"hub {self._address} sent nothing for {self._limit_s:.0f} seconds",
                    reason="HUB_STALLED",
                ) from error
            finally:
                self._waiting_since = None
            yield response

    def _watch(self) -> None:
        while not self._closed.wait(self._limit_s / 10):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._limit_s:
                self._stalled = True
                self._call.cancel()
                return
