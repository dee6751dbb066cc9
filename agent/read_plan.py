"""How a disk is read: region by region, with what the base holds there."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from agent.areas import Area, by_region, total_bytes, whole_disk
from agent.base_digests import BaseDigests
from agent.cluster_sets import areas_of
from agent.digest_words import differ
from agent.missed_changes import MissedChanges
from sendense.clusters import CLUSTER_BYTES, DIGEST_BYTES, REGION_BYTES, ZERO_DIGEST
from sendense.v1 import backup_pb2


@dataclass(frozen=True, slots=True)
class RegionRead:
    """What is read of one region: areas that begin on cluster boundaries, ascending, disjoint.

    `base_digests` has 16 bytes for each of their clusters: what equals them is not
    sent. None: there is no base, and zeros are not sent.
    """

    areas: list[Area]
    base_digests: bytes | None


Regions = Generator[RegionRead, None, None]


@dataclass(frozen=True)
class ReadPlan:
    """How one disk is read, and what the hub is told of that as its upload begins."""

    method: backup_pb2.ReadMethod
    bytes_planned: int
    regions: Callable[[], Regions]
    """Reads in ascending order, all of `bytes_planned`; the same at each call."""
    base: BaseDigests | None = None
    """What `regions` asks; closing it ends them."""
    full_reason: str = ""
    """Why an increment that was planned has no base."""
    reason: str = ""
    """Why the disk is compared although tracking was to be used."""
    sampling: backup_pb2.DiskSampling | None = None
    missed: MissedChanges | None = None
    """What tracking missed, when it missed something; hears of what differs from the base."""

    @classmethod
    def allocated(cls, areas: Sequence[Area]) -> Self:
        """Read these areas (areas.to_clusters) and send what is not zero."""
        return cls(backup_pb2.READ_METHOD_ALLOCATED, total_bytes(areas), partial(_plain, areas))

    @classmethod
    def changed(cls, areas: Sequence[Area], base: BaseDigests) -> Self:
        """Read these areas (areas.to_clusters) and send what is not in the base.

        Raises what BaseDigests does.
        """
        return cls._over(backup_pb2.READ_METHOD_CHANGED, base, partial(_changed, areas, base))

    @classmethod
    def compared(cls, allocated: Sequence[Area], base: BaseDigests, capacity_bytes: int) -> Self:
        """Read these areas and whatever the base has data for; send what is not in the base.

        Raises what BaseDigests does.
        """
        return cls._over(
            backup_pb2.READ_METHOD_COMPARED,
            base,
            partial(_compared, allocated, base, capacity_bytes),
        )

    @classmethod
    def _over(
        cls, method: backup_pb2.ReadMethod, base: BaseDigests, regions: Callable[[], Regions]
    ) -> Self:
        # The base is asked for all of it before the upload begins: damage that showed
        # later would fail this job, and each one after it that builds on the same base.
        planned = sum(total_bytes(region.areas) for region in regions())
        return cls(method, planned, regions, base)


def _plain(areas: Sequence[Area]) -> Regions:
    for here in by_region(areas):
        yield RegionRead(here, None)


def _changed(areas: Sequence[Area], base: BaseDigests) -> Regions:
    with closing(base.ask(by_region(areas))) as answers:
        for here, digests in answers:
            yield RegionRead(here, digests)


def _compared(allocated: Sequence[Area], base: BaseDigests, capacity_bytes: int) -> Regions:
    pieces = by_region(allocated)
    next_piece = next(pieces, None)
    with closing(base.ask(by_region(whole_disk(capacity_bytes)))) as answers:
        for (region,), digests in answers:
            here: list[Area] = []
            if next_piece and next_piece[0].start // REGION_BYTES == region.start // REGION_BYTES:
                here, next_piece = next_piece, next(pieces, None)
            read = _worth_reading(region, digests, here, capacity_bytes)
            if read.areas:
                yield read


def _worth_reading(
    region: Area, digests: bytes, allocated: list[Area], capacity_bytes: int
) -> RegionRead:
    """The clusters of a region that are allocated, or of which the base has data."""
    wanted = differ(digests, ZERO_DIGEST)
    first = region.start // CLUSTER_BYTES
    for area in allocated:
        wanted[area.start // CLUSTER_BYTES - first : -(-area.end // CLUSTER_BYTES) - first] = True
    held = np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES)[wanted]
    return RegionRead(areas_of(np.flatnonzero(wanted) + first, capacity_bytes), held.tobytes())
