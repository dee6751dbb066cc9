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


def subtract(areas: Iterable[Area], without: Iterable[Area]) -> list[Area]:
    """The bytes of `areas` that are not in `without`; both ascending and disjoint, as is the answer."""
    rest: list[Area] = []
    holes = iter(without)
    hole = next(holes, None)
    for area in areas:
        start = area.start
        while hole is not None and hole.start < area.end:
            if hole.start > start:
                rest.append(Area(start, hole.start - start))
            start = max(start, hole.end)
            if hole.end >= area.end:
                break  # it may reach into the next area too
            hole = next(holes, None)
        if start < area.end:
            rest.append(Area(start, area.end - start))
    return rest


def by_region(areas: Iterable[Area]) -> Iterator[list[Area]]:
    """Cut ascending areas at the regions' boundaries; yields those of each region that has any."""
    here: list[Area] = []
    for area in areas:
        start = area.start
        while start < area.end:
            region = start // REGION_BYTES
            if here and here[0].start // REGION_BYTES != region:
                yield here
                here = []
            stop = min(area.end, (region + 1) * REGION_BYTES)
            here.append(Area(start, stop - start))
            start = stop
    if here:
        yield here


def split_extents(areas: Iterable[Area]) -> Iterator[Area]:
    """Cut areas at every multiple of EXTENT_BYTES; lazily, since a disk may have millions."""
    for area in areas:
        start, end = area.start, area.end
        while start < end:
            stop = min(end, (start // EXTENT_BYTES + 1) * EXTENT_BYTES)
            yield Area(start, stop - start)
            start = stop
