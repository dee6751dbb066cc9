"""Reads on their way: requests sent ahead, fragments gathered, delivery in order."""

from collections import deque
from collections.abc import Iterable, Iterator

from agent.areas import Area
from agent.transports.disk_reader import LARGEST_READ_BYTES, Extent
from agent.transports.errors import NfcProtocolViolation, NfcReadFailed
from agent.transports.nfc.aio import Aio, Compression, OpenedFile, ReadFragment, ReadRequest
from agent.transports.nfc.fragments import decoded
from agent.transports.nfc.session import BUFFER_BYTES, Session


class PendingRead:
    """One request and what came back of it so far."""

    def __init__(self, request: ReadRequest) -> None:
        self.request = request
        self._pieces: list[tuple[int, bytes]] = []
        self._missing = request.length_bytes

    @property
    def complete(self) -> bool:
        return not self._missing

    def add(self, fragment: ReadFragment, extra: bytes) -> None:
        """Raises NfcProtocolViolation when there is more data than was asked for."""
        if fragment.length_bytes > self._missing:
            raise NfcProtocolViolation(
                "fragment length", f"{self._missing} at most", str(fragment.length_bytes)
            )
        data = decoded(extra, fragment.compression, fragment.length_bytes)
        self._pieces.append((fragment.offset, data))
        self._missing -= fragment.length_bytes

    def extent(self) -> Extent:
        """All bytes of a complete read. Raises NfcProtocolViolation for fragments that overlap."""
        if len(self._pieces) == 1:
            return Extent(self.request.offset, self._pieces[0][1])
        self._pieces.sort(key=lambda piece: piece[0])
        position = 0
        for offset, data in self._pieces:
            if offset != position:
                raise NfcProtocolViolation("fragment's offset", str(position), str(offset))
            position += len(data)
        return Extent(self.request.offset, b"".join([data for _, data in self._pieces]))


class ReadAhead:
    """Keeps up to `depth` requests outstanding; at most that many extents are in memory."""

    def __init__(
        self,
        session: Session,
        opened: OpenedFile,
        areas: Iterable[Area],
        *,
        compression: Compression,
        depth: int,
    ) -> None:
        self._session = session
        self._opened = opened
        self._areas: Iterator[Area] = iter(areas)
        self._compression = compression
        self._depth = depth
        self._in_order: deque[tuple[int, PendingRead]] = deque()
        self._outstanding: dict[int, PendingRead] = {}

    @property
    def outstanding(self) -> bool:
        """The host still owes replies."""
        return bool(self._outstanding)

    def next(self) -> Extent | None:
        """The next area's extent, None after the last. Raises NfcReadFailed, TransportErrors."""
        while len(self._in_order) < self._depth and (area := next(self._areas, None)):
            self._ask(area)
        if not self._in_order:
            return None
        op_id, head = self._in_order[0]
        self._session.expect_answer()
        while op_id in self._outstanding:
            self._receive_fragment()
        self._in_order.popleft()
        return head.extent()

    def _ask(self, area: Area) -> None:
        if not 0 < area.length <= LARGEST_READ_BYTES or area.start % 512 or area.length % 512:
            raise ValueError(f"{area} is no read of 1 to {LARGEST_READ_BYTES} bytes in sectors")
        if area.start < 0 or area.end > self._opened.capacity_bytes:
            raise ValueError(f"{area} is not inside {self._opened.capacity_bytes} bytes")
        request = ReadRequest(self._opened.handle, area.start, area.length, self._compression)
        pending = PendingRead(request)
        op_id = self._session.send(Aio.IO, request.pack())
        self._in_order.append((op_id, pending))
        self._outstanding[op_id] = pending

    def _receive_fragment(self) -> None:
        session = self._session
        header = session.receive_header()
        pending = self._outstanding.get(header.op_id)
        if pending is None:
            raise NfcProtocolViolation(
                "operation id", f"one of {sorted(self._outstanding)}", str(header.op_id)
            )
        request = pending.request
        if header.kind == Aio.ERROR:
            error = session.receive_error(header)
            raise NfcReadFailed(
                session.host, session.path, request.offset, request.length_bytes, str(error)
            ) from error
        if header.kind != Aio.IO or header.size_bytes != ReadFragment.LAYOUT.size:
            raise NfcProtocolViolation(
                "reply's type and size",
                f"{int(Aio.IO)}, {ReadFragment.LAYOUT.size}",
                f"{header.kind}, {header.size_bytes}",
            )
        fragment = ReadFragment.unpack(session.receive(header.size_bytes), request, BUFFER_BYTES)
        pending.add(fragment, session.receive(fragment.extra_bytes))
        if pending.complete:
            del self._outstanding[header.op_id]
