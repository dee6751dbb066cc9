"""The byte stream under an NFC session: plain TCP (NBD) or TLS (NBDSSL).

Plain sockets stay blocking, for `sendfile`, and the kernel keeps their deadlines
(SO_RCVTIMEO, SO_SNDTIMEO). TLS sockets would ignore those and wait on: theirs are Python's.
"""

import os
import select
import socket
import ssl
from collections.abc import Sequence
from struct import Struct
from typing import Final

from simulator.disks.link import Segment
from simulator.nfc.wire import Closed, Wire

_TIMEVAL: Final = Struct("@ll")
_ZEROS: Final = memoryview(bytes(2 << 20))
_READ_AHEAD: Final = 64 * 1024


def _set_kernel_deadlines(sock: socket.socket, receive_s: float, send_s: float) -> None:
    sock.settimeout(None)
    for option, seconds in ((socket.SO_RCVTIMEO, receive_s), (socket.SO_SNDTIMEO, send_s)):
        value = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, option, value)


class Channel:
    """Reads with a buffer, writes whole replies. One thread uses it."""

    def __init__(self, sock: socket.socket, wire: Wire, *, receive_s: float, send_s: float) -> None:
        """A read without input for `receive_s`, a write without progress for `send_s` ends it."""
        self._sock = sock
        self.wire = wire
        self._secured = isinstance(sock, ssl.SSLSocket)
        self._receive_s = receive_s
        self._send_s = send_s
        if not self._secured:
            _set_kernel_deadlines(sock, receive_s, send_s)
        self._buffer = bytearray()
        self._scratch = bytearray()

    def read(self, length: int) -> bytes:
        """Exactly so many bytes. Raises Closed."""
        data = self.peek(length)
        del self._buffer[:length]
        return data

    def peek(self, length: int) -> bytes:
        """The same without taking them."""
        if self._secured:
            self._sock.settimeout(self._receive_s)
        while len(self._buffer) < length:
            try:
                part = self._sock.recv(max(_READ_AHEAD, length - len(self._buffer)))
            except OSError as error:
                raise Closed(str(error)) from error
            if not part:
                raise Closed("end of stream")
            self._buffer += part
        return bytes(self._buffer[:length])

    def has_input(self) -> bool:
        """Whether a read would find something without waiting."""
        if self._buffer:
            return True
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        return bool(select.select([self._sock], [], [], 0)[0])

    def send(self, *parts: bytes | memoryview) -> None:
        """Send all of it. Raises Closed."""
        length = sum(len(part) for part in parts)
        try:
            if self._secured or not self.wire.quiet(length):
                self.wire.send(self._put, b"".join(parts))
            else:
                self._send_parts([memoryview(part) for part in parts if len(part)])
                self.wire.sent(length)
        except OSError as error:
            raise Closed(str(error)) from error

    def _put(self, data: bytes | memoryview) -> None:
        if self._secured:
            self._sock.settimeout(self._send_s)
            self._sock.sendall(data)
        else:
            self._send_parts([memoryview(data)])

    def _send_parts(self, parts: list[memoryview], flags: int = 0) -> None:
        while parts:
            sent = self._sock.sendmsg(parts, [], flags)
            while parts and sent >= len(parts[0]):
                sent -= len(parts.pop(0))
            if sent:
                parts[0] = parts[0][sent:]

    def send_segments(self, head: bytes, segments: Sequence[Segment]) -> None:
        """Send a head and the bytes of disk segments. Raises Closed.

        Plain TCP: straight from the files. TLS, or a fault ahead: through one buffer.
        """
        length = len(head) + sum(one.length for one in segments)
        try:
            if self._secured or not self.wire.quiet(length):
                self.wire.send(self._put, self._gathered(length, head, segments))
            else:
                self._send_from_files(head, segments)
                self.wire.sent(length)
        except OSError as error:
            raise Closed(str(error)) from error

    def _send_from_files(self, head: bytes, segments: Sequence[Segment]) -> None:
        pending = [memoryview(head)]
        for segment in segments:
            if segment.link is None:
                pending += _zeros(segment.length)
                continue
            self._send_parts(pending, socket.MSG_MORE)
            pending = []
            offset, left = segment.offset, segment.length
            while left:
                sent = os.sendfile(self._sock.fileno(), segment.link.fd, offset, left)
                if sent == 0:
                    raise Closed("a link file ended early")
                offset += sent
                left -= sent
        self._send_parts(pending)

    def _gathered(self, size: int, head: bytes, segments: Sequence[Segment]) -> memoryview:
        if size > len(self._scratch):
            self._scratch = bytearray(size)
        whole = memoryview(self._scratch)[:size]
        whole[: len(head)] = head
        fill(whole[len(head) :], segments)
        return whole


def fill(buffer: memoryview, segments: Sequence[Segment]) -> None:
    """Put the bytes of segments into a buffer of their length. Raises Closed."""
    at = 0
    for segment in segments:
        if segment.link is None:
            for zeros in _zeros(segment.length):
                buffer[at : at + len(zeros)] = zeros
                at += len(zeros)
            continue
        offset, end = segment.offset, at + segment.length
        while at < end:
            count = os.preadv(segment.link.fd, [buffer[at:end]], offset)
            if count == 0:
                raise Closed("a link file ended early")
            at += count
            offset += count


def _zeros(length: int) -> list[memoryview]:
    whole, rest = divmod(length, len(_ZEROS))
    return [_ZEROS] * whole + ([_ZEROS[:rest]] if rest else [])
