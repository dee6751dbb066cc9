"""TCP between the product's parts, for tests to cut, slow down, hold and lose.

A proxy listens where one side connects, and connects to where the other side listens.
Each connection has two pumps, a thread for each direction.
"""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self

CHUNK: Final = 64 * 1024
ACCEPT_S: Final = 0.1
LOOK_S: Final = 0.05
CONNECT_S: Final = 5.0
Direction = Literal["up", "down"]  # to the server, and back


@dataclass(eq=False)
class Link:
    """One connection. The bytes that it lost can never come: it is cut when the way is free again."""

    client: socket.socket
    server: socket.socket
    held: bool = False
    lost: bool = False
    over: bool = False
    moved: dict[Direction, int] = field(default_factory=lambda: {"up": 0, "down": 0})

    resets: bool = False

    def end(self, *, reset: bool) -> None:
        """Its pumps end it within a moment: by RST, or by FIN."""
        self.over, self.resets = True, reset

    def close(self) -> None:
        """Once, when both pumps have ended."""
        for one in (self.client, self.server):
            with contextlib.suppress(OSError):
                if self.resets:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()

    def received(self, source: socket.socket) -> bytes:
        """The next chunk; empty: the end. Raises OSError."""
        while not self.over:
            if select.select([source], [], [], LOOK_S)[0]:
                return source.recv(CHUNK)
        return b""

    def send(self, target: socket.socket, data: bytes) -> None:
        """All of it, unless the link is over before. Raises OSError."""
        left = memoryview(data)
        while left and not self.over:
            if select.select([], [target], [], LOOK_S)[1]:
                left = left[target.send(left) :]


class Proxy:
    """`with Proxy(...)` listens at `address` until the end. Any thread may call."""

    def __init__(self, target: Callable[[], tuple[str, int]], *, host: str = "127.0.0.1") -> None:
        """`target` is asked for each connection: a server may come back elsewhere."""
        self._target = target
        self._listener = socket.create_server((host, 0))
        self._listener.settimeout(ACCEPT_S)
        self._changed = threading.Condition()  # guards what follows
        self._links: list[Link] = []
        self._closed = False
        self._swallows = False
        self._refuses = False
        self._delay_s = 0.0
        self._threads: list[threading.Thread] = []
        self._gone_bytes: dict[Direction, int] = {"up": 0, "down": 0}
        self.accepted = 0

    @property
    def host(self) -> str:
        return str(self._listener.getsockname()[0])

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def lost(self) -> bool:
        """Whether a connection that stands has lost bytes."""
        with self._changed:
            return any(one.lost for one in self._links)

    @property
    def open_links(self) -> int:
        """Connections that stand."""
        with self._changed:
            return len(self._links)

    def bytes(self, direction: Direction) -> int:
        """Forwarded so far, over all connections."""
        with self._changed:
            return self._gone_bytes[direction] + sum(one.moved[direction] for one in self._links)

    # What a test does to the way.

    def cut(self, *, reset: bool = True) -> int:
        """End all connections, by RST or by FIN; how many there were. New ones are let through."""
        with self._changed:
            links = list(self._links)
            for one in links:
                one.end(reset=reset)
            self._changed.notify_all()
        return len(links)

    def refuse(self) -> None:
        """Cut, and let nobody through until `heal`."""
        with self._changed:
            self._refuses = True
        self.cut()

    def blackhole(self) -> None:
        """Whatever is sent from now on is lost, both ways, and nobody is told, until `heal`."""
        with self._changed:
            self._swallows = True

    def delay(self, seconds: float) -> None:
        """Each chunk, either way, arrives so much later."""
        with self._changed:
            self._delay_s = seconds

    def hold(self) -> int:
        """Connections that stand now move nothing until `heal`; new ones overtake them."""
        with self._changed:
            for one in self._links:
                one.held = True
            return len(self._links)

    def heal(self) -> None:
        """All is well again; connections that lost bytes are cut."""
        with self._changed:
            self._swallows = self._refuses = False
            self._delay_s = 0.0
            for one in self._links:
                one.held = False
                if one.lost:
                    one.end(reset=True)
            self._changed.notify_all()

    # Its threads.

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closed = True
        self.cut()
        self._listener.close()
        for thread in self._threads:
            thread.join(CONNECT_S)

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                server = socket.create_connection(self._target(), CONNECT_S)
            except OSError:
                client.close()
                continue
            link = Link(client, server)
            for one in (client, server):
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self.accepted += 1
                refused = self._refuses or self._closed
                if not refused:
                    self._links.append(link)
            if refused:
                link.end(reset=True)
                link.close()
                continue
            pumps = threading.Barrier(2)
            self._begin(self._pump, link, client, server, "up", pumps)
            self._begin(self._pump, link, server, client, "down", pumps)

    def _pump(
        self,
        link: Link,
        source: socket.socket,
        target: socket.socket,
        direction: Direction,
        both_over: threading.Barrier,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := link.received(source):
                if not self._let_through(link):
                    continue
                link.send(target, data)
                with self._changed:
                    link.moved[direction] += len(data)
        with self._changed:
            self._changed.wait_for(lambda: not (link.held or self._swallows) or link.over)
        with contextlib.suppress(OSError):
            if not link.resets:
                target.shutdown(socket.SHUT_WR)
        if both_over.wait() == 0:
            link.close()
            with self._changed:
                for name, number in link.moved.items():
                    self._gone_bytes[name] += number
                self._links.remove(link)

    def _let_through(self, link: Link) -> bool:
        """Wait until a chunk may go on; False: it is lost."""
        with self._changed:
            if self._delay_s:
                self._changed.wait_for(lambda: link.over, self._delay_s)
            self._changed.wait_for(lambda: not link.held or link.over)
            if self._swallows:
                link.lost = True
            return not self._swallows
