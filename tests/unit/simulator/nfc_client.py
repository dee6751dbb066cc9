"""A plain NFC client for judging the simulator: sockets and structs, sharing no code with it."""

import socket
import ssl
import struct
import zlib
from collections.abc import Iterable
from typing import Any

CLASSIC = 264
MAGIC = 0xA100DA7A
DEADLINE_S = 30.0


def classic(kind: int, fields: dict[int, bytes] | None = None) -> bytes:
    message = bytearray(CLASSIC)
    struct.pack_into("<I", message, 0, kind)
    for offset, data in (fields or {}).items():
        message[offset : offset + len(data)] = data
    return bytes(message)


class Refused(Exception):
    """The server answered with an error frame."""

    def __init__(self, code: int) -> None:
        super().__init__(f"error {code:#x}")
        self.code = code


class NfcClient:
    """A connection after the greeting, NBD or NBDSSL."""

    def __init__(self, address: tuple[str, int], token: str, service: str, pem: str) -> None:
        self.sock, self.transcript = authenticate(address, token, service, pem)
        self._operations = 0

    def receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = self.sock.recv(length - len(data))
            if not part:
                raise ConnectionError("end of stream")
            data += part
        return bytes(data)

    def greet(self) -> None:
        self.sock.sendall(classic(43, {4: b"PlainText"}))
        self.sock.sendall(classic(33))
        assert self.receive(CLASSIC) == classic(36, {16: struct.pack("<I", 1)})
        self.sock.sendall(classic(51, {4: struct.pack("<I", 11)}))
        assert self.receive(CLASSIC) == classic(51, {4: struct.pack("<I", 11)})
        self.sock.sendall(classic(54, {4: struct.pack("<II", 4, 7)}) + b"vddknbdmode")
        self.sock.sendall(classic(55, {4: struct.pack("<I", 3)}))
        self.sock.sendall(classic(52))
        assert self.receive(CLASSIC) == classic(52)

    def send(self, kind: int, payload: bytes, extra: bytes = b"") -> int:
        operation = self._operations
        self._operations += 1
        self.sock.sendall(struct.pack("<IIII", MAGIC, kind, len(payload), operation))
        self.sock.sendall(payload + extra)
        return operation

    def reply(self) -> tuple[int, int, bytes]:
        """(type, operation id, payload)"""
        magic, kind, size, operation = struct.unpack("<IIII", self.receive(16))
        assert magic == MAGIC
        return kind, operation, self.receive(size)

    def call(self, kind: int, payload: bytes, extra: bytes = b"") -> bytes:
        operation = self.send(kind, payload, extra)
        answered, to, reply = self.reply()
        assert to == operation
        if answered == 1:
            raise Refused(struct.unpack("<I", reply)[0])
        assert answered == kind
        return reply

    def open_session(self, buffer_bytes: int = 65536) -> None:
        self.call(2, struct.pack("<IIII", 0, buffer_bytes, 4, 0))
        self.call(9, bytes(12))
        self.call(22, struct.pack("<I", 1))

    def open_file(self, path: str, flags: int = 0x1E) -> bytes:
        """The whole reply; the handle is at 8, the capacity at 28."""
        name = path.encode()
        payload = struct.pack("<IIIIII", len(name), 0, 0, 0, 2, flags) + bytes(36)
        return self.call(4, payload, name)

    def ask_read(self, handle: int, offset: int, length: int, compression: int = 0) -> int:
        opcode = 1 | compression << 32
        return self.send(
            7, struct.pack("<QQQQIII", handle, opcode, offset, length, length, length, 0)
        )

    def fragments(self, wanted: Iterable[int]) -> dict[int, list[tuple[int, int, int, bytes]]]:
        """Per operation: (within, length, compression, extra) in order of arrival, until complete."""
        found: dict[int, list[tuple[int, int, int, bytes]]] = {one: [] for one in wanted}
        left: dict[int, int] = dict.fromkeys(found, -1)
        while any(left.values()):
            kind, operation, payload = self.reply()
            if kind == 1:
                raise Refused(struct.unpack("<I", payload)[0])
            zero, opcode, _, total, within, length, extra, last = struct.unpack(
                "<QQQIIIII", payload
            )
            assert (zero, last, opcode & 0xFFFFFFFF) == (0, 0, 1)
            if left[operation] < 0:
                left[operation] = total
            found[operation].append((within, length, opcode >> 32, self.receive(extra)))
            left[operation] -= length
        return found

    def read(self, handle: int, offset: int, length: int, compression: int = 0) -> bytes:
        operation = self.ask_read(handle, offset, length, compression)
        return assemble(length, self.fragments([operation])[operation])

    def close(self) -> None:
        self.sock.close()


def assemble(length: int, fragments: list[tuple[int, int, int, bytes]]) -> bytes:
    """The bytes of a read, from fragments in any order and any compression."""
    data = bytearray(b"\xaa" * length)
    for within, size, compression, extra in fragments:
        if compression == 0:
            assert len(extra) == size
            plain = extra
        elif compression == 1:
            plain = zlib.decompress(extra)
        else:
            assert compression == 3
            plain = unskip(extra)
        assert len(plain) == size
        data[within : within + size] = plain
    return bytes(data)


def unskip(extra: bytes) -> bytes:
    length, zero = struct.unpack_from("<II", extra)
    assert zero == 0
    data = bytearray(length)
    at = 8
    while at < len(extra):
        offset, size = struct.unpack_from("<II", extra, at)
        data[offset : offset + size] = extra[at + 8 : at + 8 + size]
        at += 8 + size
    return bytes(data)


def trusting(pem: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=pem)


def authenticate(
    address: tuple[str, int], token: str, service: str, pem: str
) -> tuple[Any, list[str]]:
    """(the socket NFC goes on with, the server's lines). Raises PermissionError with a refusal."""
    sock = socket.create_connection(address, DEADLINE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    lines = [_line(sock)]
    secured = trusting(pem).wrap_socket(sock, server_hostname=address[0])
    secured.sendall(f"SESSION {token}\r\nBANNER \r\n".encode())
    lines.append(_line(secured))
    secured.sendall(b"THUMBPRINT_SHA2 PlainText\r\n")
    lines.append(_line(secured))
    secured.sendall(f"PROXY {service}\r\n".encode())
    lines.append(_line(secured))
    if not lines[-1].startswith("200 "):
        secured.close()
        raise PermissionError(lines[-1])
    plain = socket.socket(fileno=socket.dup(secured.fileno()))
    plain.settimeout(DEADLINE_S)
    socket.close(secured.detach())
    if not service.endswith("ssl"):
        return plain, lines
    return trusting(pem).wrap_socket(plain, server_hostname=address[0]), lines


def _line(sock: socket.socket) -> str:
    data = bytearray()
    while not data.endswith(b"\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise ConnectionError("end of stream")
        data += byte
    return data[:-2].decode()
