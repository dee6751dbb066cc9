"""How every method asks the hub: a deadline, typed errors, pages."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

import grpc

from sendense.channel import open_channel, with_port
from sendense.errors import HubError, typed_errors

# Items a page; the hub gives at most 1000.
PAGE_SIZE: Final = 200


class PagedRequest(Protocol):
    """A request for one page of a list."""

    page_size: int
    page_token: str


class Page(Protocol):
    """One page of a list."""

    next_page_token: str


Request = TypeVar("Request")
Response = TypeVar("Response")
ListRequest = TypeVar("ListRequest", bound=PagedRequest)
ListResponse = TypeVar("ListResponse", bound=Page)
Item = TypeVar("Item")


class Connection:
    """One hub's channel; a context manager, and safe to use from several threads.

    Subclasses make their stubs at once: on a channel that was closed gRPC crashes over it.
    """

    def __init__(self, address: str, *, timeout_s: float) -> None:
        """`address` is "host" or "host:port". Connects when first used. Raises InvalidArgument."""
        self.address = with_port(address)
        self.timeout_s = timeout_s
        self._channel = open_channel(self.address)

    def close(self) -> None:
        """Close the connection; open streams end. May be called twice."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(
        self, method: "grpc.UnaryUnaryMultiCallable[Request, Response]", request: Request
    ) -> Response:
        with typed_errors(self.address):
            return method(request, timeout=self.timeout_s)

    def _pages(
        self,
        method: "grpc.UnaryUnaryMultiCallable[ListRequest, ListResponse]",
        request: ListRequest,
        items: Callable[[ListResponse], Iterable[Item]],
    ) -> Iterator[Item]:
        """The items of every page in order; a page is fetched when its first item is needed.

        Raises HubError (PAGES_WITHOUT_END) for a hub that names the same page as the next one.
        """
        request.page_size = PAGE_SIZE
        while True:
            page = self._call(method, request)
            yield from items(page)
            if not page.next_page_token:
                return
            if page.next_page_token == request.page_token:
                raise HubError(
                    f"hub {self.address} repeats a page of a list", reason="PAGES_WITHOUT_END"
                )
            request.page_token = page.next_page_token
