"""One link of a disk's chain: a sparse file and what each 64 KiB grain of it means.

| state | a read of the grain |
| --- | --- |
| ABSENT | asks the parent link; zeros where there is none |
| DATA | bytes of this link's file (a hole in the file is data that happens to be zero) |
| ZERO | zeros, whatever the parent holds: the guest gave the grain back |
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from simulator.disks.sparse import copy_range, data_extents, punch_hole

GRAIN: Final = 64 * 1024

ABSENT: Final = 0
DATA: Final = 1
ZERO: Final = 2

_NOWHERE: Final = -1


def grains_of(capacity_bytes: int) -> int:
    """Grains that a disk of this size has; the last may be cut short."""
    return -(-capacity_bytes // GRAIN)


def runs_of(values: npt.NDArray[np.int16]) -> npt.NDArray[np.int64]:
    """Indices at which a new run of equal values starts, the first included."""
    if not len(values):
        return np.zeros(0, np.int64)
    return np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1)).astype(np.int64)


class Link:
    """A file of a chain. Its owner's lock guards it; a frozen link no longer changes."""

    def __init__(
        self, path: Path, file_name: str, capacity_bytes: int, parent: "Link | None"
    ) -> None:
        """Create the file. `file_name` is the datastore path that clients know it by."""
        self.path = path
        self.file_name = file_name
        self.parent = parent
        self.capacity_bytes = capacity_bytes
        self.states: npt.NDArray[np.uint8] = np.zeros(grains_of(capacity_bytes), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(self.fd, capacity_bytes)

    def adopt(self, image: Path) -> None:
        """Take over an image's bytes; holes of the file stay grains without data.

        Raises ValueError when the image is larger than the link.
        """
        source = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(source).st_size
            if size > self.capacity_bytes:
                raise ValueError(
                    f"{image} has {size} bytes, but the disk only {self.capacity_bytes}"
                )
            copy_range(source, 0, self.fd, 0, size)
            for offset, length in data_extents(source, 0, size):
                self.states[offset // GRAIN : grains_of(offset + length)] = DATA
        finally:
            os.close(source)

    def grow(self, capacity_bytes: int) -> None:
        """Add grains without data."""
        os.ftruncate(self.fd, capacity_bytes)
        added = grains_of(capacity_bytes) - len(self.states)
        self.states = np.concatenate((self.states, np.zeros(added, np.uint8)))
        self.capacity_bytes = capacity_bytes

    def take_in(self, child: "Link") -> None:
        """Consolidate: afterwards this link holds what `child` over it showed."""
        starts = runs_of(child.states.astype(np.int16))
        for start, end in zip(starts, [*starts[1:], len(child.states)], strict=True):
            state = int(child.states[start])
            if state == ABSENT:
                continue
            offset = int(start) * GRAIN
            length = min(int(end) * GRAIN, self.capacity_bytes) - offset
            punch_hole(self.fd, offset, length)
            if state == DATA:
                copy_range(child.fd, offset, self.fd, offset, length)
            self.states[start:end] = ABSENT if state == ZERO and self.parent is None else state

    def delete(self) -> None:
        """Close and remove the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = _NOWHERE


@dataclass(frozen=True, slots=True)
class Segment:
    """`length` bytes that one place holds: a file from `offset`, or zeros (`link` is None)."""

    link: Link | None
    offset: int
    length: int


class ChainView:
    """A link read as composed with its parents. True as long as none of them changes."""

    def __init__(self, link: Link, window: tuple[int, int] | None = None) -> None:
        """`window`: bytes (offset, length) that will be read at most; None: the whole disk."""
        self.capacity_bytes = link.capacity_bytes
        offset, length = window or (0, link.capacity_bytes)
        self._first = offset // GRAIN
        part = slice(self._first, grains_of(offset + length))
        self._links: list[Link] = []
        grains = part.stop - part.start
        source = np.full(grains, _NOWHERE, np.int16)
        open_grains = np.ones(grains, bool)
        at: Link | None = link
        while at is not None:
            states = at.states[part]
            source[open_grains & (states == DATA)] = len(self._links)
            open_grains &= states == ABSENT
            self._links.append(at)
            at = at.parent
        self.allocated: npt.NDArray[np.bool_] = source != _NOWHERE
        runs = runs_of(source)
        self._sources = source[runs]
        self._starts = runs + self._first

    def segments(self, offset: int, length: int) -> list[Segment]:
        """The places that hold [offset, offset + length), in order; inside disk and window."""
        end = offset + length
        run = int(np.searchsorted(self._starts, offset // GRAIN, side="right")) - 1
        found: list[Segment] = []
        while offset < end:
            following = run + 1
            run_end = int(self._starts[following]) * GRAIN if following < len(self._starts) else end
            part = min(run_end, end) - offset
            source = int(self._sources[run])
            link = None if source == _NOWHERE else self._links[source]
            found.append(Segment(link, offset, part))
            offset += part
            run = following
        return found

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of a range that must lie inside the disk."""
        buffer = bytearray(length)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill a zeroed buffer with the bytes from `offset` on."""
        done = 0
        for segment in self.segments(offset, len(buffer)):
            if segment.link is not None:
                _read_file(segment.link.fd, buffer[done : done + segment.length], segment.offset)
            done += segment.length


def _read_file(fd: int, buffer: memoryview, offset: int) -> None:
    while buffer:
        count = os.preadv(fd, [buffer], offset)
        if count == 0:  # past the end of the file: as zero as the buffer is
            return
        buffer = buffer[count:]
        offset += count
