"""The benchmark's disk: 1.5 GiB, a third of it files of the installed system, the rest zeros."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sendense.clusters import CLUSTER_BYTES, ZERO_CLUSTER
from tools.installed_files import installed_files

CAPACITY_BYTES: Final = 1536 << 20
DATA_BYTES: Final = 512 << 20
# 64 pieces of data, each followed by zeros of twice its length.
PIECE_BYTES: Final = 8 << 20
STRIDE_BYTES: Final = PIECE_BYTES * (CAPACITY_BYTES // DATA_BYTES)
# As in a file system, every file begins on a block.
BLOCK_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """The image and what is in it, in bytes; `nonzero_bytes` counts whole 64 KiB clusters."""

    path: Path
    capacity_bytes: int
    nonzero_bytes: int
    files: int


def make_source(path: Path) -> Source:
    """Write the image; its zeros are written out as well, so that both sides have to look at them."""
    files = installed_files(DATA_BYTES)
    data = bytearray()
    with path.open("wb") as image:
        os.posix_fallocate(image.fileno(), 0, CAPACITY_BYTES)
        at = 0
        for file in files:
            content = file.read_bytes()
            data += content + bytes(-len(content) % BLOCK_BYTES)
            while len(data) >= PIECE_BYTES and at < CAPACITY_BYTES:
                at = _write_piece(image.fileno(), at, data)
    nonzero = 0
    with path.open("rb") as image:
        while cluster := image.read(CLUSTER_BYTES):
            nonzero += CLUSTER_BYTES if cluster != ZERO_CLUSTER else 0
    return Source(path, CAPACITY_BYTES, nonzero, len(files))


def _write_piece(fd: int, at: int, data: bytearray) -> int:
    """Write the first piece of `data` and the zeros after it; where the next one begins."""
    piece = bytes(data[:PIECE_BYTES]) + bytes(STRIDE_BYTES - PIECE_BYTES)
    if os.pwrite(fd, piece, at) != len(piece):
        raise OSError(f"short write at byte {at} of the benchmark's image")
    del data[:PIECE_BYTES]
    return at + STRIDE_BYTES
