"""One NFC session: the classic greeting, then AIO frames until the client is done."""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from simulator.behaviour import LARGEST_BUFFER_BYTES, Behaviour
from simulator.disks.link import Segment
from simulator.faults.board import FaultBoard
from simulator.nfc.channel import Channel, fill
from simulator.nfc.compression import compress, decompress, zeros_skipped
from simulator.nfc.frames import (
    CLASSIC_BYTES,
    HEADER,
    MAGIC,
    READ,
    U32,
    WRITE,
    Aio,
    Classic,
    Code,
    Compression,
    DdbGet,
    Fragment,
    IoRequest,
    OpenFile,
    OpenFileReply,
    OpenSession,
    QueryAllocated,
    classic,
)
from simulator.nfc.handles import Handle, NfcError, open_handle
from simulator.nfc.session_faults import SessionFaults
from simulator.nfc.tickets import LIBRARY_VERSION, Ticket

_LARGEST_NAME: Final = 4096
_LARGEST_PAYLOAD: Final = 4096
_LARGEST_READ: Final = 64 << 20
_GATHERED_REQUESTS: Final = 8
_SOCKET_BUFFER: Final = 1 << 20


class ProtocolBroken(Exception):
    """The client sent what cannot be understood: the connection ends."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """One fragment still to be sent."""

    operation: int
    request: IoRequest
    within: int
    segments: list[Segment]
    length: int


@dataclass
class _Write:
    """A write whose fragments are still arriving."""

    offset: int
    total: int
    received: int = 0


class NfcSession:
    """Serves one connection in the thread that calls `serve`."""

    def __init__(
        self,
        channel: Channel,
        ticket: Ticket,
        behaviour: Behaviour,
        faults: FaultBoard,
        expire_sessions: Callable[[], object],
    ) -> None:
        self._channel = channel
        self._ticket = ticket
        self._behaviour = behaviour
        self._faults = SessionFaults(faults, channel.wire, expire_sessions)
        self._random = random.Random(0)  # an order that repeats is what tests want
        self._buffer_bytes = 0
        self._handles: dict[int, Handle] = {}
        self._last_handle = 0
        self._writes: dict[int, _Write] = {}
        self._requests: dict[int, Callable[[int, bytes], None]] = {
            Aio.OPEN_SESSION: self._open_session,
            Aio.SET_SOCK_OPTS: self._set_socket_options,
            Aio.SET_RES_POOL: self._set_resource_pool,
            Aio.OPEN_FILE: self._open_file,
            Aio.DDB_GET: self._ddb_get,
            Aio.QUERY_ALLOCATED: self._query_allocated,
            Aio.IO: self._io,
            Aio.CLOSE_FILE: self._close_file,
            Aio.CLOSE_SESSION: self._close_session,
        }

    def serve(self) -> None:
        """Until the client ends the session. Raises Closed and ProtocolBroken."""
        try:
            self._greet()
            while self._serve_one():
                pass
        finally:
            for handle in self._handles.values():
                handle.close()

    # The greeting.

    def _greet(self) -> None:
        if b"PlainText" not in self._classic(Classic.AUTHENTICATION)[4:]:
            raise ProtocolBroken("authentication is not PlainText")
        self._classic(Classic.HELLO)
        self._channel.send(classic(Classic.HELLO_REPLY, {16: 1}))
        version = U32.unpack_from(self._classic(Classic.VERSION), 4)[0]
        self._channel.send(classic(Classic.VERSION, {4: min(version, LIBRARY_VERSION)}))
        name = self._classic(Classic.CLIENT_NAME)
        length = U32.unpack_from(name, 4)[0] + U32.unpack_from(name, 8)[0]
        if length > _LARGEST_NAME:
            raise ProtocolBroken(f"a client name of {length} bytes")
        self._channel.read(length)
        self._classic(Classic.FEATURES)
        self._classic(Classic.READY)
        self._channel.send(classic(Classic.READY))

    def _classic(self, expected: Classic) -> bytes:
        message = self._channel.read(CLASSIC_BYTES)
        kind = U32.unpack_from(message)[0]
        if kind != expected:
            raise ProtocolBroken(f"message {kind} instead of {expected}")
        return message

    # Frames.

    def _serve_one(self) -> bool:
        first = self._channel.read(U32.size)
        kind = U32.unpack(first)[0]
        if kind == Classic.SESSION_COMPLETE:
            self._channel.read(CLASSIC_BYTES - U32.size)
            return False
        if kind != MAGIC:
            raise ProtocolBroken(f"neither a frame nor the end: {kind:#x}")
        _, request, size, operation = HEADER.unpack(first + self._channel.read(HEADER.size - 4))
        serve = self._requests.get(request)
        if serve is None or size > _LARGEST_PAYLOAD:
            raise ProtocolBroken(f"frame type {request} with {size} bytes")
        payload = self._channel.read(size)
        try:
            serve(operation, payload)
        except NfcError as error:
            self._refuse(operation, error)
        except (ValueError, struct.error) as error:
            raise ProtocolBroken(f"frame type {request}: {error}") from error
        return True

    def _reply(self, kind: Aio, operation: int, payload: bytes, extra: bytes = b"") -> None:
        self._channel.send(HEADER.pack(MAGIC, kind, len(payload), operation), payload, extra)

    def _refuse(self, operation: int, error: NfcError) -> None:
        self._reply(Aio.ERROR, operation, U32.pack(error.code))

    def _handle(self, number: int) -> Handle:
        try:
            return self._handles[number]
        except KeyError:
            raise NfcError(Code.BAD_HANDLE, f"no handle {number}") from None

    def _open_session(self, operation: int, payload: bytes) -> None:
        wanted = OpenSession.unpack(payload)
        if not 0 < wanted.buffer_bytes <= LARGEST_BUFFER_BYTES or not wanted.buffer_count:
            raise NfcError(Code.BAD_ARGUMENT, f"buffers of {wanted.buffer_bytes} bytes")
        self._buffer_bytes = wanted.buffer_bytes
        self._reply(Aio.OPEN_SESSION, operation, wanted.pack())

    def _set_socket_options(self, operation: int, _payload: bytes) -> None:
        sizes = U32.pack(_SOCKET_BUFFER) * 2
        self._reply(Aio.SET_SOCK_OPTS, operation, sizes + U32.pack(1))

    def _set_resource_pool(self, operation: int, payload: bytes) -> None:
        self._reply(Aio.SET_RES_POOL, operation, payload)

    def _open_file(self, operation: int, payload: bytes) -> None:
        wanted = OpenFile.unpack(payload)
        if wanted.path_bytes > _LARGEST_NAME:
            raise ProtocolBroken(f"a path of {wanted.path_bytes} bytes")
        path = self._channel.read(wanted.path_bytes).decode()
        if not self._buffer_bytes:
            raise NfcError(Code.BAD_ARGUMENT, "no session is open")
        if wanted.kind != OpenFile.DISK:
            raise NfcError(Code.BAD_ARGUMENT, f"file kind {wanted.kind}")
        self._faults.opening(self._ticket.vm, path)
        self._last_handle += 1
        handle = open_handle(self._ticket, path, wanted.flags, self._last_handle)
        self._handles[handle.number] = handle
        reply = OpenFileReply(
            handle.number, wanted.flags, handle.view.capacity_bytes, *handle.geometry
        )
        self._reply(Aio.OPEN_FILE, operation, reply.pack())

    def _close_file(self, operation: int, payload: bytes) -> None:
        number = int.from_bytes(payload, "little")
        self._handle(number).close()
        del self._handles[number]
        self._reply(Aio.CLOSE_FILE, operation, payload)

    def _close_session(self, operation: int, payload: bytes) -> None:
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()
        self._buffer_bytes = 0
        self._reply(Aio.CLOSE_SESSION, operation, payload)

    def _ddb_get(self, operation: int, payload: bytes) -> None:
        wanted = DdbGet.unpack(payload)
        if wanted.key_bytes > _LARGEST_NAME:
            raise ProtocolBroken(f"a key of {wanted.key_bytes} bytes")
        key = self._channel.read(wanted.key_bytes).decode()
        value = (self._handle(wanted.handle).database(key) or "").encode("ascii")
        self._reply(Aio.DDB_GET, operation, DdbGet.REPLY.pack(len(value)), value)

    def _query_allocated(self, operation: int, payload: bytes) -> None:
        query = QueryAllocated.unpack(payload)
        handle = self._handle(query.handle)
        chunks = handle.allocated(query.start, query.chunk_bytes, query.chunk_count)
        chunks = self._faults.allocation(handle, query.start, query.chunk_bytes, chunks)
        bitmap = np.packbits(chunks, bitorder="little").tobytes()
        bitmap += bytes(-len(bitmap) % 4)
        self._reply(Aio.QUERY_ALLOCATED, operation, query.pack_reply(), bitmap)

    # Reading and writing.

    def _io(self, operation: int, payload: bytes) -> None:
        request = IoRequest.unpack(payload)
        if request.direction == READ:
            self._read(operation, request)
        elif request.direction == WRITE:
            self._write(operation, Fragment.unpack(payload))
        else:
            raise ProtocolBroken(f"opcode {request.opcode:#x}")

    def _read(self, operation: int, request: IoRequest) -> None:
        if not self._behaviour.shuffle_fragments:
            for piece in self._pieces(operation, request):
                self._send(piece)
            return
        pieces = self._pieces(operation, request)
        for more_operation, more in self._pending_reads():
            try:
                pieces += self._pieces(more_operation, more)
            except NfcError as error:
                self._refuse(more_operation, error)
        self._random.shuffle(pieces)
        for piece in pieces:
            self._send(piece)

    def _pending_reads(self) -> list[tuple[int, IoRequest]]:
        """Read requests that have arrived meanwhile; another frame ends the gathering."""
        found: list[tuple[int, IoRequest]] = []
        while len(found) < _GATHERED_REQUESTS and self._channel.has_input():
            header = self._channel.peek(HEADER.size)
            magic, kind, size, operation = HEADER.unpack(header)
            if magic != MAGIC or kind != Aio.IO or size != IoRequest.LAYOUT.size:
                break
            payload = self._channel.peek(HEADER.size + size)[HEADER.size :]
            request = IoRequest.unpack(payload)
            if request.direction != READ:
                break
            self._channel.read(HEADER.size + size)
            found.append((operation, request))
        return found

    def _pieces(self, operation: int, request: IoRequest) -> list[_Piece]:
        handle = self._handle(request.handle)
        self._faults.reading(handle, request)
        if request.length > _LARGEST_READ:
            raise NfcError(Code.BAD_ARGUMENT, f"a read of {request.length} bytes")
        pieces: list[_Piece] = []
        for within in range(0, max(request.length, 1), self._buffer_bytes):
            length = min(self._buffer_bytes, request.length - within)
            segments = handle.segments(request.offset + within, length)
            pieces.append(_Piece(operation, request, within, segments, length))
        return pieces

    def _send(self, piece: _Piece) -> None:
        compression = piece.request.compression
        if compression == Compression.SKIPZ and all(one.link is None for one in piece.segments):
            self._send_data(piece, Compression.SKIPZ, zeros_skipped(piece.length))
        elif compression in (Compression.ZLIB, Compression.SKIPZ):
            data = memoryview(bytearray(piece.length))
            fill(data, piece.segments)
            used, packed = compress(data, compression)
            self._send_data(piece, used, packed)
        else:
            head = self._head(piece, Compression.NONE, piece.length)
            self._channel.send_segments(head, piece.segments)

    def _send_data(self, piece: _Piece, compression: int, extra: bytes | memoryview) -> None:
        self._channel.send(self._head(piece, compression, len(extra)), extra)

    def _head(self, piece: _Piece, compression: int, extra_bytes: int) -> bytes:
        fragment = Fragment(
            handle=0,
            opcode=READ | compression << 32,
            offset=piece.request.offset,
            total=piece.request.length,
            within=piece.within,
            length=piece.length,
            extra_bytes=extra_bytes,
        )
        handle = self._handle(piece.request.handle)
        frame_bytes, operation, fragment = self._faults.head(
            handle, Fragment.LAYOUT.size, piece.operation, fragment
        )
        return HEADER.pack(MAGIC, Aio.IO, frame_bytes, operation) + fragment.pack()

    def _write(self, operation: int, fragment: Fragment) -> None:
        if max(fragment.extra_bytes, fragment.length) > LARGEST_BUFFER_BYTES + _LARGEST_PAYLOAD:
            raise ProtocolBroken(f"a fragment of {fragment.extra_bytes} bytes")
        extra = self._channel.read(fragment.extra_bytes)
        handle = self._handle(fragment.handle)
        if not handle.writable:
            raise NfcError(Code.WRITE_REFUSED, "the disk was opened for reading only")
        if not fragment.length or fragment.within + fragment.length > fragment.total:
            raise NfcError(Code.BAD_ARGUMENT, "a fragment outside its write")
        data = decompress(extra, fragment.opcode >> 32, fragment.length)
        handle.write(fragment.offset + fragment.within, data)
        write = self._writes.setdefault(operation, _Write(fragment.offset, fragment.total))
        write.received += fragment.length
        if write.received >= write.total:
            del self._writes[operation]
            done = replace(fragment, handle=0, within=0, length=fragment.total, extra_bytes=0)
            self._reply(Aio.IO, operation, done.pack())
