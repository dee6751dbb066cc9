"""How a disk is read: region by region, with what the base holds there."""

import struct
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from blake3 import blake3

from agent.areas import Area, by_region, merge, total_bytes, whole_disk
from agent.base_digests import BaseDigests
from agent.cluster_sets import ClusterSet, areas_of
from agent.digest_words import differ
from agent.missed_changes import MissedChanges
from sendense.clusters import CLUSTER_BYTES, ZERO_DIGEST
from sendense.v1 import backup_pb2

PLAN_DIGEST_BYTES: Final = 16


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
    areas: Sequence[Area]
    """All that is read (areas.to_clusters)."""
    base: BaseDigests | None = None
    """What `regions` asks; closing it ends them."""
    full_reason: str = ""
    """Why an increment that was planned has no base."""
    reason: str = ""
    """Why the disk is compared although tracking was to be used."""
    sampling: backup_pb2.DiskSampling | None = None
    missed: MissedChanges | None = None
    """Hears of what differs from the base, where tracking told what would."""

    @classmethod
    def allocated(cls, areas: Sequence[Area]) -> Self:
        """Read these areas (areas.to_clusters) and send what is not zero."""
        return cls(backup_pb2.READ_METHOD_ALLOCATED, areas)

    # The base is asked for all that an increment is built on before its upload begins:
    # damage that showed later would fail this job, and each one after it on the same base.

    @classmethod
    def changed(cls, areas: Sequence[Area], base: BaseDigests) -> Self:
        """Read these areas (areas.to_clusters) and send what is not in the base.

        Raises what BaseDigests does.
        """
        for _ in base.ask(by_region(areas)):
            pass
        return cls(backup_pb2.READ_METHOD_CHANGED, areas, base)

    @classmethod
    def compared(cls, areas: Sequence[Area], base: BaseDigests, capacity_bytes: int) -> Self:
        """Read these areas and whatever the base has data for; send what is not in the base.

        Raises what BaseDigests does.
        """
        more = _with_data(base, areas, capacity_bytes)
        return cls(backup_pb2.READ_METHOD_COMPARED, merge([*areas, *more]), base)

    @property
    def bytes_planned(self) -> int:
        return total_bytes(self.areas)

    def digest(self, capacity_bytes: int) -> bytes:
        """BLAKE3 of what decides which clusters an upload sends (16 bytes).

        Which base it is the hub knows better: it compares that itself.
        """
        facts = (int(self.method), int(self.base is not None), capacity_bytes)
        bounds = np.array([(area.start, area.length) for area in self.areas], "<i8")
        packed = struct.pack("<3q", *facts) + bounds.tobytes()
        return blake3(packed).digest(PLAN_DIGEST_BYTES)

    def behind(self, cluster: int) -> Self:
        """What is left of the plan behind this cluster."""
        start = (cluster + 1) * CLUSTER_BYTES
        left = [
            Area(max(area.start, start), area.end - max(area.start, start))
            for area in self.areas
            if area.end > start
        ]
        return replace(self, areas=left)

    def regions(self) -> Regions:
        """Reads in ascending order, all of `areas`; the same at each call.

        Raises what BaseDigests does.
        """
        regions = by_region(self.areas)
        if self.base is None:
            yield from (RegionRead(areas, None) for areas in regions)
            return
        with closing(self.base.ask(regions)) as answers:
            for areas, digests in answers:
                yield RegionRead(areas, digests)


def _with_data(base: BaseDigests, besides: Sequence[Area], capacity_bytes: int) -> list[Area]:
    """The clusters outside of `besides` of which the base has something else than zeros."""
    known = ClusterSet(besides)
    found: list[Area] = []
    with closing(base.ask(by_region(whole_disk(capacity_bytes)))) as answers:
        for (region,), digests in answers:
            numbers = np.flatnonzero(differ(digests, ZERO_DIGEST)) + region.start // CLUSTER_BYTES
            found += areas_of(numbers[~known.contains(numbers)], capacity_bytes)
    return found
