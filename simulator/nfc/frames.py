"""The structures of NFC, each declared once. All integers are little-endian.

Classic messages have 264 bytes: u32 type, then type-specific bytes, zero-padded.
AIO frames have a 16-byte header, a payload and, after it, an extra that the
header's size does not count.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Final

CLASSIC_BYTES: Final = 264
MAGIC: Final = 0xA100DA7A

U32: Final = Struct("<I")
HEADER: Final = Struct("<IIII")  # magic, type, payload bytes, operation id


class Classic(IntEnum):
    """Types of classic messages."""

    SESSION_COMPLETE = 4
    HELLO = 33
    HELLO_REPLY = 36
    AUTHENTICATION = 43
    VERSION = 51
    READY = 52
    CLIENT_NAME = 54
    FEATURES = 55


class Aio(IntEnum):
    """Types of AIO frames; a reply repeats its request's type, or says ERROR."""

    ERROR = 1
    OPEN_SESSION = 2
    CLOSE_SESSION = 3
    OPEN_FILE = 4
    CLOSE_FILE = 5
    IO = 7
    SET_SOCK_OPTS = 9
    DDB_GET = 11
    QUERY_ALLOCATED = 13
    SET_RES_POOL = 22


class Code(IntEnum):
    """Codes of error replies. Only WRITE_REFUSED is known; the others are this host's own."""

    FAILED = 0x01
    BAD_ARGUMENT = 0x02
    NOT_FOUND = 0x04
    LOCKED = 0x05
    BAD_HANDLE = 0x06
    WRITE_REFUSED = 0x0B


class Compression(IntEnum):
    """The high half of an opcode."""

    NONE = 0
    ZLIB = 1
    FASTLZ = 2
    SKIPZ = 3


READ: Final = 1
WRITE: Final = 0


def classic(kind: Classic, fields: dict[int, int | bytes] | None = None) -> bytes:
    """A classic message with numbers (u32) or text at the given offsets."""
    message = bytearray(CLASSIC_BYTES)
    U32.pack_into(message, 0, kind)
    for offset, value in (fields or {}).items():
        data = U32.pack(value) if isinstance(value, int) else value
        message[offset : offset + len(data)] = data
    return bytes(message)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Request and reply: size and count of the buffers."""

    LAYOUT: ClassVar[Struct] = Struct("<IIII")  # 0, buffer bytes, buffer count, 0

    buffer_bytes: int
    buffer_count: int

    def pack(self) -> bytes:
        return self.LAYOUT.pack(0, self.buffer_bytes, self.buffer_count, 0)

    @classmethod
    def unpack(cls, payload: bytes) -> "OpenSession":
        _, size, count, _ = cls.LAYOUT.unpack(payload)
        return cls(size, count)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """Request to open a disk; the path follows as the extra."""

    LAYOUT: ClassVar[Struct] = Struct("<I12xII36x")  # path bytes, kind (2: disk), flags
    DISK: ClassVar[int] = 2
    READ_ONLY: ClassVar[int] = 0x1E
    READ_WRITE: ClassVar[int] = 0x1A

    path_bytes: int
    kind: int
    flags: int

    @classmethod
    def unpack(cls, payload: bytes) -> "OpenFile":
        return cls(*cls.LAYOUT.unpack(payload))


@dataclass(frozen=True, slots=True)
class OpenFileReply:
    """The handle and the disk's size and geometry."""

    # 8: handle, 16: kind, 20: flags, 28: capacity, 36: sector bytes, 40/44/48: geometry
    LAYOUT: ClassVar[Struct] = Struct("<8xQII4xQIIII8x")

    handle: int
    flags: int
    capacity_bytes: int
    cylinders: int
    heads: int
    sectors: int

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.handle,
            OpenFile.DISK,
            self.flags,
            self.capacity_bytes,
            512,
            self.cylinders,
            self.heads,
            self.sectors,
        )


@dataclass(frozen=True, slots=True)
class DdbGet:
    """Request for a value of the disk's database; the key follows as the extra."""

    LAYOUT: ClassVar[Struct] = Struct("<QII")  # handle, key bytes, 0
    REPLY: ClassVar[Struct] = Struct("<12xI")  # value bytes; the value follows

    handle: int
    key_bytes: int

    @classmethod
    def unpack(cls, payload: bytes) -> "DdbGet":
        handle, size, _ = cls.LAYOUT.unpack(payload)
        return cls(handle, size)


@dataclass(frozen=True, slots=True)
class QueryAllocated:
    """Request for allocated chunks; the reply repeats it, and a bitmap follows."""

    LAYOUT: ClassVar[Struct] = Struct("<QQQQQQ")  # handle, 0, chunk bytes, start, chunk count, 0
    SMALLEST_CHUNK: ClassVar[int] = 64 * 1024

    handle: int
    chunk_bytes: int
    start: int
    chunk_count: int

    @classmethod
    def unpack(cls, payload: bytes) -> "QueryAllocated":
        handle, _, chunk, start, count, _ = cls.LAYOUT.unpack(payload)
        return cls(handle, chunk, start, count)

    def pack_reply(self) -> bytes:
        return self.LAYOUT.pack(0, 0, self.chunk_bytes, self.start, self.chunk_count, 0)


@dataclass(frozen=True, slots=True)
class IoRequest:
    """A read, or the head of a write: both have 44 bytes and the opcode at 8."""

    # handle, opcode, byte offset, byte length, length again, length again, 0
    LAYOUT: ClassVar[Struct] = Struct("<QQQQIII")

    handle: int
    opcode: int
    offset: int
    length: int

    @property
    def direction(self) -> int:
        return self.opcode & 0xFFFFFFFF

    @property
    def compression(self) -> int:
        return self.opcode >> 32

    @classmethod
    def unpack(cls, payload: bytes) -> "IoRequest":
        handle, opcode, offset, length, _, _, _ = cls.LAYOUT.unpack(payload)
        return cls(handle, opcode, offset, length)


@dataclass(frozen=True, slots=True)
class Fragment:
    """One fragment of a read reply, or of a write request; `extra_bytes` of data follow.

    In a write request the first field is the handle, in a reply it is 0.
    """

    # handle, opcode, request's offset, request's length, fragment's offset within it,
    # uncompressed length, extra length, 0
    LAYOUT: ClassVar[Struct] = Struct("<QQQIIIII")

    handle: int
    opcode: int
    offset: int
    total: int
    within: int
    length: int
    extra_bytes: int

    @classmethod
    def unpack(cls, payload: bytes) -> "Fragment":
        *fields, _ = cls.LAYOUT.unpack(payload)
        return cls(*fields)

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.handle,
            self.opcode,
            self.offset,
            self.total,
            self.within,
            self.length,
            self.extra_bytes,
            0,
        )
