"""What a fragment looks like on the wire: plain, zlib, or SkipZ (runs of non-zero bytes)."""

import zlib
from struct import Struct
from typing import Final

import numpy as np

from simulator.nfc.frames import Compression

_SKIPZ_HEAD: Final = Struct("<II")  # uncompressed length, 0
_SKIPZ_RUN: Final = Struct("<II")  # offset, length; the bytes follow
_SKIPZ_BLOCK: Final = 4096  # zeros are looked for in blocks of this size


def compress(data: memoryview, compression: int) -> tuple[int, bytes | memoryview]:
    """(compression used, bytes): what would not shrink, or FastLZ, travels as it is."""
    if compression == Compression.ZLIB:
        packed = zlib.compress(data, 1)
    elif compression == Compression.SKIPZ:
        packed = skip_zeros(data)
    else:
        return Compression.NONE, data
    if len(packed) < len(data):
        return compression, packed
    return Compression.NONE, data


def skip_zeros(data: memoryview) -> bytes:
    """SkipZ: the length, then each run of blocks that are not all zero."""
    blocks, rest = divmod(len(data), _SKIPZ_BLOCK)
    words = np.frombuffer(data, np.uint64, blocks * _SKIPZ_BLOCK // 8)
    used = words.reshape(blocks, _SKIPZ_BLOCK // 8).any(axis=1)
    if rest:
        used = np.append(used, any(data[blocks * _SKIPZ_BLOCK :]))
    edges = np.flatnonzero(np.diff(np.concatenate(([False], used, [False]))))
    parts: list[bytes | memoryview] = [_SKIPZ_HEAD.pack(len(data), 0)]
    for first, end in edges.reshape(-1, 2):
        start = int(first) * _SKIPZ_BLOCK
        stop = min(int(end) * _SKIPZ_BLOCK, len(data))
        parts += [_SKIPZ_RUN.pack(start, stop - start), data[start:stop]]
    return b"".join(parts)


def zeros_skipped(length: int) -> bytes:
    """SkipZ of a fragment of zeros."""
    return _SKIPZ_HEAD.pack(length, 0)


def decompress(extra: bytes, compression: int, length: int) -> bytes:
    """The bytes of a fragment that a client wrote. Raises ValueError when they do not fit."""
    if compression == Compression.NONE:
        data = extra
    elif compression == Compression.ZLIB:
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(extra, length)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if not unpacker.eof:
            raise ValueError("zlib data is longer than announced or cut short")
    elif compression == Compression.SKIPZ:
        data = _fill_zeros(extra, length)
    else:
        raise ValueError(f"compression {compression} is not known")
    if len(data) != length:
        raise ValueError(f"{len(data)} bytes, but {length} were announced")
    return data


def _fill_zeros(extra: bytes, length: int) -> bytes:
    if len(extra) < _SKIPZ_HEAD.size or _SKIPZ_HEAD.unpack_from(extra)[0] != length:
        raise ValueError("SkipZ data of another length")
    data = bytearray(length)
    at = _SKIPZ_HEAD.size
    while at < len(extra):
        if at + _SKIPZ_RUN.size > len(extra):
            raise ValueError("SkipZ run cut short")
        offset, size = _SKIPZ_RUN.unpack_from(extra, at)
        at += _SKIPZ_RUN.size
        if offset + size > length or at + size > len(extra):
            raise ValueError("SkipZ run outside the fragment")
        data[offset : offset + size] = extra[at : at + size]
        at += size
    return bytes(data)
