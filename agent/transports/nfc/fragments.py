"""Compressed fragments, decoded with every bound checked before a byte is copied."""

import zlib
from struct import Struct

from agent.transports.errors import NfcProtocolViolation
from agent.transports.nfc.aio import Compression

_SKIPZ_HEAD = Struct("<II")
"""SkipZ starts with the uncompressed length and 0; a run starts with its offset and length."""

_ZEROS = bytes(2 << 20)
"""Holes are this very object or slices of it: a disk of holes costs no memory."""


def zeros(length: int) -> bytes:
    """`length` zero bytes."""
    return _ZEROS if length == len(_ZEROS) else bytes(length)


def decoded(extra: bytes, compression: Compression, length: int) -> bytes:
    """The `length` bytes of a fragment. Raises NfcProtocolViolation."""
    if compression is Compression.NONE:
        return extra
    if compression is Compression.ZLIB:
        return _inflated(extra, length)
    return _unskipped(extra, length)


def _inflated(extra: bytes, length: int) -> bytes:
    """zlib: one plain stream, exactly `length` bytes, nothing after it."""
    stream = zlib.decompressobj()
    try:
        # One byte more than allowed tells a stream that is too long, without
        # letting it fill the memory.
        data = stream.decompress(extra, length + 1)
    except zlib.error as error:
        raise NfcProtocolViolation("zlib fragment", "a zlib stream", str(error)) from error
    if len(data) != length or not stream.eof or stream.unused_data or stream.unconsumed_tail:
        raise NfcProtocolViolation(
            "zlib fragment", f"one stream of {length} bytes", f"{len(data)} bytes, or more, or cut"
        )
    return data


def _unskipped(extra: bytes, length: int) -> bytes:
    """SkipZ: the non-zero runs (u32 offset, u32 length, bytes), ascending; zeros between them."""
    if len(extra) < _SKIPZ_HEAD.size:
        raise NfcProtocolViolation("SkipZ fragment", "8 bytes or more", str(len(extra)))
    whole, _ = _SKIPZ_HEAD.unpack_from(extra)
    if whole != length:
        raise NfcProtocolViolation("SkipZ fragment's length", str(length), str(whole))
    if len(extra) == _SKIPZ_HEAD.size:
        return zeros(length)
    view = memoryview(extra)
    blank = memoryview(_ZEROS if length <= len(_ZEROS) else bytes(length))
    pieces: list[memoryview] = []
    position, done = _SKIPZ_HEAD.size, 0
    while position < len(extra):
        if position + _SKIPZ_HEAD.size > len(extra):
            raise NfcProtocolViolation("SkipZ run", "8 bytes of head", str(len(extra) - position))
        start, run = _SKIPZ_HEAD.unpack_from(extra, position)
        position += _SKIPZ_HEAD.size
        if start < done or start + run > length:
            raise NfcProtocolViolation("SkipZ run", f"within {done}..{length}", f"{start}+{run}")
        if position + run > len(extra):
            raise NfcProtocolViolation("SkipZ run's bytes", str(run), str(len(extra) - position))
        if start > done:
            pieces.append(blank[: start - done])
        pieces.append(view[position : position + run])
        position += run
        done = start + run
    if done < length:
        pieces.append(blank[: length - done])
    return b"".join(pieces)
