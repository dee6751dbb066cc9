"""Areas of a disk: byte ranges, and the arithmetic that backups need of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from sendense.clusters import CLUSTER_BYTES, REGION_BYTES

# One read of the disk and one task for an encoder. It divides a region, so
# pieces of this grid never cross a region's boundary.
EXTENT_BYTES: Final = 2 * 1024 * 1024
assert REGION_BYTES % EXTENT_BYTES == 0 and EXTENT_BYTES % CLUSTER_BYTES == 0


@dataclass(frozen=True, slots=True, order=True)
class Area:
    """`length` bytes of a disk from byte offset `start`."""

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


def whole_disk(capacity_bytes: int) -> list[Area]:
    """The one area that is the disk."""
    return [Area(0, capacity_bytes)] if capacity_bytes else []


def total_bytes(areas: Iterable[Area]) -> int:
    """Sum of the lengths; the areas must be disjoint for this to mean bytes of the disk."""
    return sum(area.length for area in areas)


def merge(areas: Iterable[Area]) -> list[Area]:
    """The same bytes as ascending areas that neither overlap nor touch; empty ones vanish."""
    merged: list[Area] = []
    for area in sorted(areas):
        if area.length <= 0:
            continue
        if merged and area.start <= merged[-1].end:
            last = merged[-1]
            merged[-1] = Area(last.start, max(last.end, area.end) - last.start)
        else:
            merged.append(area)
    return merged


def to_clusters(areas: Iterable[Area], capacity_bytes: int) -> list[Area]:
    """The clusters that hold any of these bytes: aligned outward, cut at the disk's end, merged.

    What lies beyond the capacity is no part of the disk and is dropped.
    """

    def aligned() -> Iterator[Area]:
        for area in areas:
            if area.length <= 0 or area.start >= capacity_bytes:
                continue
            start = area.start // CLUSTER_BYTES * CLUSTER_BYTES
            end = -(-area.end // CLUSTER_BYTES) * CLUSTER_BYTES
            yield Area(start, min(end, capacity_bytes) - start)

    return merge(aligned())


def split_extents(areas: Iterable[Area]) -> Iterator[Area]:
    """Cut areas at every multiple of EXTENT_BYTES; lazily, since a disk may have millions."""
    for area in areas:
        start, end = area.start, area.end
        while start < end:
            stop = min(end, (start // EXTENT_BYTES + 1) * EXTENT_BYTES)
            yield Area(start, stop - start)
            start = stop
