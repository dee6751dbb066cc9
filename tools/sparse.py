"""Sparse files: their data, copies of them, and what differs between two of them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1 << 20
_ZEROS: Final = bytes(CHUNK_BYTES)

Span = tuple[int, int]  # start and end, in bytes


def data_spans(fd: int, size: int) -> Iterator[Span]:
    """The parts of a file that are not holes, ascending; everything else reads as zeros."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole follows
            raise
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, min(at, size)


def differences(first: Path, second: Path, *, grain: int = 4096) -> Iterator[Span]:
    """Where two files differ, on a grid of `grain` bytes, ascending; sizes must be equal.

    Exact: whatever is data in either file is compared byte for byte; what is a
    hole in both is zeros in both. Raises ValueError for files of two sizes.
    """
    size = first.stat().st_size
    if second.stat().st_size != size:
        raise ValueError(f"{first} has {size} bytes, {second} has {second.stat().st_size}")
    with first.open("rb") as a, second.open("rb") as b:
        spans = _union(
            list(data_spans(a.fileno(), size)), list(data_spans(b.fileno(), size)), CHUNK_BYTES
        )
        for start, end in spans:
            for at in range(start, min(end, size), CHUNK_BYTES):
                length = min(CHUNK_BYTES, end - at, size - at)
                one = os.pread(a.fileno(), length, at)
                other = os.pread(b.fileno(), length, at)
                if len(one) != length or len(other) != length:
                    raise OSError(
                        f"short read at byte {at}: the file changed while it was compared"
                    )
                if one != other:
                    yield from _differing(one, other, at, grain)


def identical(first: Path, second: Path) -> bool:
    """True when both files have the same size and the same bytes."""
    if first.stat().st_size != second.stat().st_size:
        return False
    return next(differences(first, second), None) is None


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file and keep its holes."""
    size = source.stat().st_size
    with source.open("rb") as reader, target.open("wb") as writer:
        os.ftruncate(writer.fileno(), size)
        for start, end in data_spans(reader.fileno(), size):
            for at in range(start, end, CHUNK_BYTES):
                data = os.pread(reader.fileno(), min(CHUNK_BYTES, end - at), at)
                if data != _ZEROS[: len(data)]:
                    os.pwrite(writer.fileno(), data, at)


def data_bytes(path: Path) -> int:
    """Bytes of a file that are not holes."""
    with path.open("rb") as file:
        return sum(end - start for start, end in data_spans(file.fileno(), path.stat().st_size))


def _union(first: list[Span], second: list[Span], grid: int) -> list[Span]:
    """Spans that cover both lists, grown to the grid, ascending and disjoint."""
    merged: list[Span] = []
    for start, end in sorted(first + second):
        start, end = start // grid * grid, -(-end // grid) * grid
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _differing(one: bytes, other: bytes, offset: int, grain: int) -> Iterator[Span]:
    begin: int | None = None
    for at in range(0, len(one), grain):
        same = one[at : at + grain] == other[at : at + grain]
        if not same and begin is None:
            begin = at
        elif same and begin is not None:
            yield offset + begin, offset + at
            begin = None
    if begin is not None:
        yield offset + begin, offset + len(one)
