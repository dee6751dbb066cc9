"""NFC's AIO frames: a header, a payload, and for some an extra; each declared once.

All integers are little-endian. The tables are the description; golden bytes
in tests/contracts/nfc judge them and the code.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Self

from agent.transports.errors import NfcProtocolViolation


class Aio(IntEnum):
    """Types of AIO frames."""

    ERROR = 1
    OPEN_SESSION = 2
    CLOSE_SESSION = 3
    OPEN_FILE = 4
    CLOSE_FILE = 5
    IO = 7
    SET_SOCK_OPTS = 9
    QUERY_ALLOCATED = 13
    SET_RES_POOL = 22


@dataclass(frozen=True, slots=True)
class AioHeader:
    """Before every AIO payload.

    ==== ===== =========================================
       0     4 magic 0xA100DA7A
       4     4 type
       8     4 size of the payload in bytes
      12     4 operation id: a reply repeats its request's
    ==== ===== =========================================
    """

    LAYOUT: ClassVar[Struct] = Struct("<IIII")
    MAGIC: ClassVar[int] = 0xA100DA7A

    kind: int
    size_bytes: int
    op_id: int

    def pack(self) -> bytes:
        return self.LAYOUT.pack(self.MAGIC, self.kind, self.size_bytes, self.op_id)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Raises NfcProtocolViolation when the magic is missing."""
        magic, kind, size_bytes, op_id = cls.LAYOUT.unpack(data)
        if magic != cls.MAGIC:
            raise NfcProtocolViolation("AIO magic", f"{cls.MAGIC:#010x}", f"{magic:#010x}")
        return cls(kind, size_bytes, op_id)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Payload of OPEN_SESSION: u32 0, buffer size in bytes, buffer count, u32 0."""

    LAYOUT: ClassVar[Struct] = Struct("<IIII")

    buffer_bytes: int
    buffer_count: int

    def pack(self) -> bytes:
        return self.LAYOUT.pack(0, self.buffer_bytes, self.buffer_count, 0)


SOCK_OPTS_PAYLOAD = bytes(12)
RES_POOL_PAYLOAD = bytes([1, 0, 0, 0])
CLOSE_SESSION_PAYLOAD = bytes(4)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """Payload of OPEN_FILE; the path (no NUL) follows as extra.

    ==== ===== =========================================
       0     4 length of the path in bytes
       4    12 zeros
      16     4 2: a disk
      20     4 flags: 0x1e read-only
      24    36 zeros
    ==== ===== =========================================
    """

    LAYOUT: ClassVar[Struct] = Struct("<IIIIII36x")
    DISK: ClassVar[int] = 2
    READ_ONLY: ClassVar[int] = 0x1E

    path_bytes: int

    def pack(self) -> bytes:
        return self.LAYOUT.pack(self.path_bytes, 0, 0, 0, self.DISK, self.READ_ONLY)


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """Payload of OPEN_FILE's reply.

    ==== ===== =========================================
       8     8 handle
      16     4 file type
      20     4 flags
      28     8 capacity in bytes
      36     4 sector size in bytes
      40    12 cylinders, heads, sectors
    ==== ===== =========================================
    """

    LAYOUT: ClassVar[Struct] = Struct("<8xQII4xQI20x")

    handle: int
    kind: int
    flags: int
    capacity_bytes: int
    sector_bytes: int

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """Raises NfcProtocolViolation for a size or capacity that no disk has."""
        if len(payload) != cls.LAYOUT.size:
            raise NfcProtocolViolation(
                "OPEN_FILE reply's size", str(cls.LAYOUT.size), str(len(payload))
            )
        opened = cls(*cls.LAYOUT.unpack(payload))
        if opened.capacity_bytes <= 0 or opened.capacity_bytes % 512:
            raise NfcProtocolViolation(
                "disk capacity", "a positive multiple of 512", str(opened.capacity_bytes)
            )
        return opened


CLOSE_FILE = Struct("<Q")
"""Payload of CLOSE_FILE: the handle."""


@dataclass(frozen=True, slots=True)
class QueryAllocated:
    """Payload of QUERY_ALLOCATED.

    ==== ===== =========================================
       0     8 handle
       8     8 0
      16     8 chunk size in bytes, at least 64 KiB
      24     8 start in bytes, a multiple of the chunk
      32     8 number of chunks
      40     8 0
    ==== ===== =========================================
    """

    LAYOUT: ClassVar[Struct] = Struct("<QQQQQQ")

    handle: int
    chunk_bytes: int
    start: int
    chunk_count: int

    def pack(self) -> bytes:
        return self.LAYOUT.pack(self.handle, 0, self.chunk_bytes, self.start, self.chunk_count, 0)

    @property
    def bitmap_bytes(self) -> int:
        """Length of the reply's bitmap: one bit a chunk, padded to 4 bytes."""
        return (self.chunk_count + 31) // 32 * 4

    def check_reply(self, payload: bytes) -> None:
        """The reply has 48 bytes, the chunk count at 32; the bitmap follows.

        Raises NfcProtocolViolation.
        """
        if len(payload) != 48:
            raise NfcProtocolViolation("QUERY_ALLOCATED reply's size", "48", str(len(payload)))
        (count,) = Struct("<32xQ8x").unpack(payload)
        if count != self.chunk_count:
            raise NfcProtocolViolation("chunk count", str(self.chunk_count), str(count))


class Compression(IntEnum):
    """How the data of a fragment travels."""

    NONE = 0
    ZLIB = 1
    SKIPZ = 3


READ = 1


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Payload of IO for a read.

    ==== ===== =========================================
       0     8 handle
       8     8 opcode: low half 1 = read, high half the compression wished for
      16     8 offset in bytes
      24     8 length in bytes
      32     4 length again
      36     4 length again
      40     4 0
    ==== ===== =========================================
    """

    LAYOUT: ClassVar[Struct] = Struct("<QQQQIII")

    handle: int
    offset: int
    length_bytes: int
    compression: Compression

    def pack(self) -> bytes:
        length = self.length_bytes
        opcode = self.compression << 32 | READ
        return self.LAYOUT.pack(self.handle, opcode, self.offset, length, length, length, 0)


@dataclass(frozen=True, slots=True)
class ReadFragment:
    """Payload of IO's reply: one fragment of a read; `extra_bytes` of data follow.

    ==== ===== =========================================
       0     8 0
       8     8 opcode: low half 1 = read, high half how this fragment is compressed
      16     8 offset of the request in bytes
      24     4 length of the request
      28     4 offset of this fragment within the request
      32     4 length of this fragment, uncompressed
      36     4 length of the extra that follows
      40     4 0
    ==== ===== =========================================
    """

    LAYOUT: ClassVar[Struct] = Struct("<QQQIIIII")

    compression: Compression
    offset: int
    length_bytes: int
    extra_bytes: int

    @classmethod
    def unpack(cls, payload: bytes, sent: ReadRequest, buffer_bytes: int) -> Self:
        """Decode and check against the request. Raises NfcProtocolViolation.

        `offset` counts within the request. A compressed fragment that would
        not shrink is sent plain, so an extra is hardly longer than its data.
        """
        if len(payload) != cls.LAYOUT.size:
            raise NfcProtocolViolation("IO reply's size", str(cls.LAYOUT.size), str(len(payload)))
        _, opcode, start, length, offset, fragment, extra, _ = cls.LAYOUT.unpack(payload)
        if opcode & 0xFFFFFFFF != READ:
            raise NfcProtocolViolation("IO direction", str(READ), str(opcode & 0xFFFFFFFF))
        if start != sent.offset:
            raise NfcProtocolViolation("request offset", str(sent.offset), str(start))
        if length != sent.length_bytes:
            raise NfcProtocolViolation("request length", str(sent.length_bytes), str(length))
        if not 0 < fragment <= buffer_bytes:
            raise NfcProtocolViolation("fragment length", f"1 to {buffer_bytes}", str(fragment))
        if offset + fragment > length:
            raise NfcProtocolViolation(
                "fragment's end", f"at most {length}", f"{offset}+{fragment}"
            )
        try:
            compression = Compression(opcode >> 32)
        except ValueError:
            raise NfcProtocolViolation(
                "fragment's compression", "0, 1 or 3", str(opcode >> 32)
            ) from None
        if compression is Compression.NONE and extra != fragment:
            raise NfcProtocolViolation("plain fragment's extra length", str(fragment), str(extra))
        if extra > fragment + MOST_EXTRA_OVERHEAD_BYTES:
            raise NfcProtocolViolation(
                "compressed fragment's extra length", f"about {fragment} at most", str(extra)
            )
        return cls(compression, offset, fragment, extra)


MOST_EXTRA_OVERHEAD_BYTES = 64
SMALL_REPLY_BYTES = 4096
"""Longest payload accepted where the reply's content is not used."""
