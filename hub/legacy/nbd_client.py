"""A small NBD client: fixed newstyle handshake, structured replies, reads and block status.

Source: the NBD protocol document (doc/proto.md of NetworkBlockDevice/nbd),
sections "Handshake phase" and "Transmission phase". All integers are big-endian.
"""

import socket
from collections.abc import Iterator
from struct import Struct
from typing import Final

from hub.legacy.errors import NbdFailed

# A slow share may take its time over one read, but not for ever.
ANSWER_TIMEOUT_S: Final = 120.0
READ_LIMIT: Final = 32 << 20
STATUS_LIMIT: Final = 1 << 30
EXPORT: Final = b""
CONTEXT: Final = b"base:allocation"

_GREETING: Final = Struct(">8s8sH")  # NBDMAGIC, IHAVEOPT, handshake flags
_CLIENT_FLAGS: Final = Struct(">I")
_OPTION: Final = Struct(">8sII")  # IHAVEOPT, option, bytes of data
_OPTION_REPLY: Final = Struct(">QIII")  # magic, option, reply type, bytes of data
_REQUEST: Final = Struct(">IHHQQI")  # magic, flags, command, cookie, offset, length
_SIMPLE: Final = Struct(">IQ")  # (after the magic) error, cookie
_CHUNK: Final = Struct(">HHQI")  # (after the magic) flags, type, cookie, bytes of payload
_MAGIC: Final = Struct(">I")
_INFO_EXPORT: Final = Struct(">HQH")  # information type, size, transmission flags
_DATA: Final = Struct(">Q")  # offset; data follow
_HOLE: Final = Struct(">QI")  # offset, length
_EXTENT: Final = Struct(">II")  # length, flags
_ERROR: Final = Struct(">IH")  # error, bytes of message

_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_GO, _OPT_STRUCTURED_REPLY, _OPT_SET_META_CONTEXT = 7, 8, 10
_REP_ACK, _REP_INFO, _REP_META_CONTEXT, _REP_ERROR = 1, 3, 4, 1 << 31
_OPTION_REPLY_MAGIC: Final = 0x3E889045565A9
_REQUEST_MAGIC, _SIMPLE_MAGIC, _CHUNK_MAGIC = 0x25609513, 0x67446698, 0x668E33EF
_CMD_READ, _CMD_DISC, _CMD_BLOCK_STATUS = 0, 2, 7
_FLAG_DONE: Final = 1
_NONE, _OFFSET_DATA, _OFFSET_HOLE, _BLOCK_STATUS, _ERROR_CHUNK = 0, 1, 2, 5, 1 << 15
_STATE_ZERO: Final = 2
_REPLY_LIMIT: Final = READ_LIMIT + 4096


class NbdClient:
    """One export, open for reading, over a connected socket. One thread; one request at a time."""

    def __init__(self, connection: socket.socket) -> None:
        """Takes the socket over and shakes hands. Raises NbdFailed."""
        self._socket = connection
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        self._cookie = 0
        self._context_id = -1
        self.size_bytes = 0
        self._greet()
        self._option(_OPT_STRUCTURED_REPLY, b"")
        self._option(
            _OPT_SET_META_CONTEXT,
            _sized(EXPORT) + _MAGIC.pack(1) + _sized(CONTEXT),
        )
        self._option(_OPT_GO, _sized(EXPORT) + b"\0\0")
        if self._context_id < 0 or not self.size_bytes:
            raise NbdFailed("the server gives no size, or no block status")

    def read(self, offset: int, length: int) -> bytes:
        """Exactly that range, of at most 32 MiB. Raises NbdFailed, also when the server cannot read it."""
        assert 0 < length <= READ_LIMIT
        try:
            return self._read(offset, length)
        except NbdFailed as error:
            raise NbdFailed(f"bytes {offset} to {offset + length} of the disk: {error}") from error

    def _read(self, offset: int, length: int) -> bytes:
        content = bytearray(length)
        covered = 0
        for kind, payload in self._ask(_CMD_READ, offset, length):
            if kind == _OFFSET_DATA:
                (start,) = _DATA.unpack_from(payload)
                data = memoryview(payload)[_DATA.size :]
                self._require_within(start, len(data), offset, length)
                content[start - offset : start - offset + len(data)] = data
                covered += len(data)
            elif kind == _OFFSET_HOLE:
                start, hole = _HOLE.unpack(payload)
                self._require_within(start, hole, offset, length)
                covered += hole
            elif kind != _NONE:
                raise NbdFailed(f"a chunk of type {kind} answers a read")
        if covered != length:
            raise NbdFailed(f"{covered} bytes answer a read of {length}")
        return bytes(content)

    def areas(self) -> Iterator[tuple[int, int, bool]]:
        """(offset, length, whether it reads as zeros) of the whole export, ascending. Raises NbdFailed."""
        offset = 0
        while offset < self.size_bytes:
            length = min(STATUS_LIMIT, self.size_bytes - offset)
            end = offset + length
            for extent_bytes, flags in self._status(offset, length):
                # The last extent may go beyond what was asked for.
                extent = min(extent_bytes, end - offset)
                if extent > 0:
                    yield offset, extent, bool(flags & _STATE_ZERO)
                    offset += extent

    def close(self) -> None:
        """Say goodbye, if that is still possible, and close. May be called twice."""
        try:
            self._send(_REQUEST.pack(_REQUEST_MAGIC, 0, _CMD_DISC, 0, 0, 0))
        except NbdFailed:
            pass
        finally:
            self._socket.close()

    def _status(self, offset: int, length: int) -> list[tuple[int, int]]:
        extents: list[tuple[int, int]] = []
        for kind, payload in self._ask(_CMD_BLOCK_STATUS, offset, length):
            if kind == _BLOCK_STATUS:
                (context,) = _MAGIC.unpack_from(payload)
                if context != self._context_id or (len(payload) - 4) % _EXTENT.size:
                    raise NbdFailed("a block status is not the one asked for")
                extents += _EXTENT.iter_unpack(payload[4:])
            elif kind != _NONE:
                raise NbdFailed(f"a chunk of type {kind} answers a block status")
        if not any(extent for extent, _ in extents):
            raise NbdFailed("a block status tells of nothing")
        return extents

    def _ask(self, command: int, offset: int, length: int) -> Iterator[tuple[int, bytes]]:
        """Send a request; the chunks of its answer, to the last. Raises NbdFailed for an error."""
        self._cookie += 1
        self._send(_REQUEST.pack(_REQUEST_MAGIC, 0, command, self._cookie, offset, length))
        done = False
        failed = ""
        while not done:
            (magic,) = _MAGIC.unpack(self._receive(_MAGIC.size))
            if magic == _SIMPLE_MAGIC:
                error, cookie = _SIMPLE.unpack(self._receive(_SIMPLE.size))
                raise NbdFailed(f"request {cookie} is answered with error {error}")
            if magic != _CHUNK_MAGIC:
                raise NbdFailed(f"{magic:#x} is no reply's magic")
            flags, kind, cookie, size = _CHUNK.unpack(self._receive(_CHUNK.size))
            if cookie != self._cookie or size > _REPLY_LIMIT:
                raise NbdFailed(f"a reply of {size} bytes to request {cookie}")
            payload = self._receive(size)
            done = bool(flags & _FLAG_DONE)
            if kind & _ERROR_CHUNK:
                error, message = _ERROR.unpack_from(payload)
                words = payload[_ERROR.size : _ERROR.size + message].decode(errors="replace")
                failed = failed or f"the server's error {error} {words}"
            else:
                yield kind, payload
        if failed:
            raise NbdFailed(failed.strip())

    def _greet(self) -> None:
        magic, options, flags = _GREETING.unpack(self._receive(_GREETING.size))
        if magic != b"NBDMAGIC" or options != b"IHAVEOPT" or not flags & _FIXED_NEWSTYLE:
            raise NbdFailed("the server does not greet as a newstyle NBD server does")
        if not flags & _NO_ZEROES:
            raise NbdFailed("the server is older than this client knows")
        self._send(_CLIENT_FLAGS.pack(_FIXED_NEWSTYLE | _NO_ZEROES))

    def _option(self, option: int, data: bytes) -> None:
        self._send(_OPTION.pack(b"IHAVEOPT", option, len(data)) + data)
        kind = 0
        while kind != _REP_ACK:
            magic, answered, kind, size = _OPTION_REPLY.unpack(self._receive(_OPTION_REPLY.size))
            if magic != _OPTION_REPLY_MAGIC or answered != option or size > _REPLY_LIMIT:
                raise NbdFailed(f"option {option} is not answered as it should be")
            payload = self._receive(size)
            if kind & _REP_ERROR:
                words = payload.decode(errors="replace")
                raise NbdFailed(f"option {option} is refused ({kind & ~_REP_ERROR}) {words}")
            if kind == _REP_META_CONTEXT and payload[4:] == CONTEXT:
                (self._context_id,) = _MAGIC.unpack_from(payload)
            if kind == _REP_INFO and len(payload) == _INFO_EXPORT.size and payload[:2] == b"\0\0":
                _, self.size_bytes, _ = _INFO_EXPORT.unpack(payload)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise NbdFailed(f"the connection broke: {error}") from error

    def _receive(self, length: int) -> bytes:
        content = bytearray(length)
        view = memoryview(content)
        while view:
            try:
                received = self._socket.recv_into(view)
            except TimeoutError as error:
                raise NbdFailed(f"no answer for {ANSWER_TIMEOUT_S:.0f} s") from error
            except OSError as error:
                raise NbdFailed(f"the connection broke: {error}") from error
            if received == 0:
                raise NbdFailed("the server ended the connection")
            view = view[received:]
        return bytes(content)

    @staticmethod
    def _require_within(start: int, size: int, offset: int, length: int) -> None:
        if start < offset or start + size > offset + length:
            raise NbdFailed("a read is answered with other bytes than those asked for")


def _sized(text: bytes) -> bytes:
    return _MAGIC.pack(len(text)) + text
