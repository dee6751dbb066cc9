"""Where stored clusters go in a QCOW2 file, and how they get there (docs/formats.md, Layer)."""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sendense.clusters import CLUSTER_BYTES
from sendense.codec import RAW_SIZE, ZERO_SIZE, Array32, EncodedClusters
from sendense.qcow2_format import Array64

# os.pwritev, or one that is told of each write.
PWriteV = Callable[[int, Sequence[bytes | memoryview], int], int]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a batch's bytes lie in the file: up to three runs, offset 0 for an empty one.

    Raw clusters must be aligned. The compressed run is cut at a cluster's border
    so that its head fills the gap before the raw run; the rest follows that run.
    """

    head_at: int
    head_bytes: int
    raw_at: int
    raw_bytes: int
    rest_at: int
    rest_bytes: int

    @property
    def end(self) -> int:
        """The byte behind the last run; 0 when nothing was placed."""
        return max(
            self.head_at + self.head_bytes,
            self.raw_at + self.raw_bytes,
            self.rest_at + self.rest_bytes,
        )

    def offsets(self, sizes: Array32) -> Array64:
        """The file offset of each stored cluster, uint64[n]; 0 for zero clusters."""
        raw = sizes == RAW_SIZE
        packed_sizes = np.where(raw, 0, sizes).astype(np.int64)
        within = np.cumsum(packed_sizes) - packed_sizes
        offsets = np.where(
            within < self.head_bytes,
            self.head_at + within,
            self.rest_at - self.head_bytes + within,
        )
        if self.raw_bytes:
            offsets[raw] = self.raw_at + np.arange(self.raw_bytes // CLUSTER_BYTES) * CLUSTER_BYTES
        offsets[sizes == ZERO_SIZE] = 0
        return offsets.astype(np.uint64)


@dataclass(slots=True)
class Cursor:
    """The end of what was placed in an image, in bytes; the header cluster is taken.

    To go on in an image, begin at the greatest `Placement.end` of what is in it.
    """

    position: int = CLUSTER_BYTES

    def place(self, batch: EncodedClusters) -> Placement:
        """Take the room of a batch's runs."""
        packed_bytes, raw_bytes = len(batch.compressed), len(batch.raw)
        if not raw_bytes:
            at = self.position if packed_bytes else 0
            self.position += packed_bytes
            return Placement(at, packed_bytes, 0, 0, 0, 0)
        raw_at = _aligned(self.position)
        head_bytes = 0
        if packed_bytes and raw_at > self.position:
            sizes = batch.sizes
            ends = np.cumsum(sizes[(sizes != ZERO_SIZE) & (sizes != RAW_SIZE)], dtype=np.int64)
            fitting = int(np.searchsorted(ends, raw_at - self.position, side="right"))
            head_bytes = int(ends[fitting - 1]) if fitting else 0
        head_at = self.position if head_bytes else 0
        rest_bytes = packed_bytes - head_bytes
        self.position = raw_at + raw_bytes + rest_bytes
        return Placement(
            head_at,
            head_bytes,
            raw_at,
            raw_bytes,
            raw_at + raw_bytes if rest_bytes else 0,
            rest_bytes,
        )

    def allocate(self, clusters: int) -> int:
        """Take whole, aligned clusters. Returns the offset of the first."""
        at = _aligned(self.position)
        self.position = at + clusters * CLUSTER_BYTES
        return at


def write_placed(
    fd: int, batch: EncodedClusters, placement: Placement, pwritev: PWriteV = os.pwritev
) -> None:
    """Write a batch where it was placed: one or two calls. Raises OSError."""
    packed = memoryview(batch.compressed)
    if placement.head_bytes:
        write_all(fd, [packed[: placement.head_bytes]], placement.head_at, pwritev)
    if placement.raw_bytes:
        write_all(fd, [batch.raw, packed[placement.head_bytes :]], placement.raw_at, pwritev)


def write_all(
    fd: int,
    parts: Sequence[bytes | memoryview],
    offset: int,
    pwritev: PWriteV = os.pwritev,
) -> None:
    """Write parts one after the other, all of them, from `offset`. Raises OSError.

    A call may write less than asked, as the last one before a full disk does.
    """
    left = [memoryview(part) for part in parts if len(part)]
    while left:
        written = pwritev(fd, left, offset)
        if written <= 0:
            raise OSError(errno.EIO, "the file takes no more bytes")
        offset += written
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _aligned(position: int) -> int:
    return -(-position // CLUSTER_BYTES) * CLUSTER_BYTES
