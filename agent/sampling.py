"""Which clusters are read to check what vSphere tells of a disk, and what that check is worth.

Pure functions: the same job draws the same clusters of the same disk.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, lgamma
from typing import Final, Self

from agent.areas import Area, subtract, whole_disk
from agent.cluster_sets import ClusterSet
from sendense.clusters import CLUSTER_BYTES, cluster_count

CONFIDENCE: Final = 0.95
# Boot records, partition tables and the first structures of a file system.
DISK_START_CLUSTERS: Final = 64


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """How much is read of what would not be read otherwise."""

    fraction: float = 0.001  # of the clusters of each stratum, drawn evenly
    least: int = 64  # of those, however few the fraction is
    first: int = 16  # of the disk's first 64 clusters
    neighbours: int = 32  # of the clusters right before and after what is read


@dataclass(frozen=True)
class Unread:
    """The clusters of a disk that are not read otherwise, in two strata.

    Areas of whole clusters: what the host calls allocated, and tracking unchanged; what
    the host calls unallocated. Together they are `areas`.
    """

    capacity_bytes: int
    areas: list[Area]
    allocated: list[Area]
    unallocated: list[Area]

    @classmethod
    def beside(cls, read: Sequence[Area], allocation: Sequence[Area], capacity_bytes: int) -> Self:
        """What `read` leaves of the disk; both are areas.to_clusters."""
        areas = subtract(whole_disk(capacity_bytes), read)
        return cls(capacity_bytes, areas, subtract(allocation, read), subtract(areas, allocation))


@dataclass(frozen=True, slots=True)
class Draw:
    """So many of a stratum's clusters were drawn evenly, without replacement."""

    population: int
    drawn: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Clusters to read, ascending: those drawn of each stratum, and some at likelier places."""

    clusters: list[int]
    draws: tuple[Draw, ...]

    @property
    def population(self) -> int:
        """All that the sample stands for: every cluster that is not read otherwise."""
        return sum(draw.population for draw in self.draws)


def choose_sample(
    job_id: str, disk_index: int, method: str, unread: Unread, settings: SampleSettings
) -> Sample:
    """Clusters of `unread` to be compared with what a restore would have there.

    Each stratum is drawn from evenly; on top of that come clusters of the disk's start and
    neighbours of what is read, where lies are likelier. Another `method` of reading draws
    afresh: what an earlier sample found tells nothing of this one's chances.
    """
    source = random.Random(f"{job_id}/{disk_index}/{method}")
    chosen: set[int] = set()
    draws: list[Draw] = []
    for stratum in (ClusterSet(unread.allocated), ClusterSet(unread.unallocated)):
        population = len(stratum)
        drawn = min(population, max(settings.least, ceil(population * settings.fraction)))
        chosen.update(stratum.at(source.sample(range(population), drawn)))
        draws.append(Draw(population, drawn))
    chosen.update(_some(source, _of_the_start(unread), settings.first))
    chosen.update(_some(source, _beside_what_is_read(unread), settings.neighbours))
    return Sample(sorted(chosen), tuple(draws))


def undetected_bound(draws: Sequence[Draw]) -> int:
    """Fewer clusters than this differ, at 95 % confidence, when none of the sampled ones did.

    That is: whatever disk has so many differing clusters, its sample misses every one of
    them with a probability of at most 5 %.

    For one stratum it is the smallest number that a draw without replacement misses so
    rarely. Of several, each with its own number b, it is the sum of their b - 1, plus one:
    a disk with so many differing clusters has at least b of them in one of its strata,
    since b - 1 in each are fewer. That stratum's draw alone misses them with a probability
    of at most 5 %, so the whole sample does, and no stratum needs a higher confidence than
    the sum. An empty stratum, or one that is drawn completely, adds nothing.
    """
    return 1 + sum(_bound_of_one(draw) - 1 for draw in draws)


def _bound_of_one(draw: Draw) -> int:
    if draw.drawn == 0:
        return draw.population + 1
    low, high = 1, draw.population - draw.drawn + 1  # so many cannot all be missed
    while low < high:
        middle = (low + high) // 2
        if _all_missed(draw, middle) <= 1 - CONFIDENCE:
            high = middle
        else:
            low = middle + 1
    return low


def _all_missed(draw: Draw, differing: int) -> float:
    """Probability that a draw hits none of the differing: C(N - b, n) / C(N, n)."""
    same = draw.population - differing
    if draw.drawn > same:
        return 0.0
    return exp(
        lgamma(same + 1)
        - lgamma(same - draw.drawn + 1)
        - lgamma(draw.population + 1)
        + lgamma(draw.population - draw.drawn + 1)
    )


def _of_the_start(unread: Unread) -> list[int]:
    beyond = [Area(DISK_START_CLUSTERS * CLUSTER_BYTES, unread.capacity_bytes)]
    start = ClusterSet(subtract(unread.areas, beyond))
    return start.at(range(len(start)))


def _beside_what_is_read(unread: Unread) -> list[int]:
    # Unread areas do not touch: there is something that is read on both sides of each.
    last = cluster_count(unread.capacity_bytes) - 1
    ends = {
        number
        for area in unread.areas
        for number, edge in (
            (area.start // CLUSTER_BYTES, 0),
            (-(-area.end // CLUSTER_BYTES) - 1, last),
        )
        if number != edge
    }
    return sorted(ends)


def _some(source: random.Random, clusters: Sequence[int], most: int) -> list[int]:
    return source.sample(clusters, min(len(clusters), most))
