"""Which clusters are read to check what vSphere tells of a disk, and what that check is worth.

Pure functions: the same job draws the same clusters of the same disk.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, lgamma
from typing import Final

from agent.areas import Area, merge, subtract, to_clusters, whole_disk
from agent.cluster_sets import ClusterSet
from sendense.clusters import CLUSTER_BYTES, cluster_count

CONFIDENCE: Final = 0.95
# Boot records, partition tables and the first structures of a file system.
DISK_START_CLUSTERS: Final = 64


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """How much of what tracking calls unchanged is read."""

    fraction: float = 0.001  # of the allocated clusters, drawn evenly
    least: int = 64  # of those, however few the fraction is
    first: int = 16  # of the disk's first 64 clusters
    neighbours: int = 32  # of the clusters right before and after changed areas
    unallocated: int = 16  # of those that the host calls unallocated


@dataclass(frozen=True, slots=True)
class Sample:
    """Clusters to read, ascending; `drawn_evenly` of them from a `population` of that size."""

    clusters: list[int]
    drawn_evenly: int = 0
    population: int = 0


def choose_sample(
    seed: str,
    disk_index: int,
    changed: Sequence[Area],
    allocated: Sequence[Area],
    capacity_bytes: int,
    settings: SampleSettings,
) -> Sample:
    """Clusters outside of `changed` to be compared with the base.

    Evenly drawn are the allocated ones; on top of them come clusters of the disk's
    start, neighbours of changed areas and unallocated ones, where lies are likelier.
    """
    changed = to_clusters(changed, capacity_bytes)
    allocated = to_clusters(allocated, capacity_bytes)
    unchanged = ClusterSet(subtract(allocated, changed))
    population = len(unchanged)
    evenly = min(population, max(settings.least, ceil(population * settings.fraction)))
    source = _source(seed, disk_index, "unchanged")
    chosen = set(unchanged.at(source.sample(range(population), evenly)))

    start = whole_disk(min(capacity_bytes, DISK_START_CLUSTERS * CLUSTER_BYTES))
    chosen |= _some(source, subtract(start, changed), settings.first)
    # Areas that are merged do not touch: what is beside one is unchanged.
    count = cluster_count(capacity_bytes)
    beside = [
        number
        for area in changed
        for number in (area.start // CLUSTER_BYTES - 1, -(-area.end // CLUSTER_BYTES))
        if 0 <= number < count
    ]
    chosen.update(source.sample(beside, min(len(beside), settings.neighbours)))
    unallocated = subtract(whole_disk(capacity_bytes), merge([*allocated, *changed]))
    chosen |= _some(source, unallocated, settings.unallocated)
    return Sample(sorted(chosen), evenly, population)


def choose_unallocated(
    seed: str,
    disk_index: int,
    allocated: Sequence[Area],
    capacity_bytes: int,
    settings: SampleSettings,
) -> Sample:
    """Clusters that the host calls unallocated: they must read as zeros."""
    unallocated = subtract(whole_disk(capacity_bytes), to_clusters(allocated, capacity_bytes))
    source = _source(seed, disk_index, "unallocated")
    return Sample(sorted(_some(source, unallocated, settings.unallocated)))


def undetected_bound(population: int, drawn: int) -> int:
    """Fewer clusters than this differ, at 95 % confidence, when none of the drawn ones did.

    The smallest number of differing clusters of which a draw without replacement
    misses every one with a probability of at most 5 %.
    """
    if drawn == 0:
        return population + 1
    low, high = 1, population - drawn + 1  # so many cannot all be missed
    while low < high:
        middle = (low + high) // 2
        if _all_missed(population, drawn, middle) <= 1 - CONFIDENCE:
            high = middle
        else:
            low = middle + 1
    return low


def _all_missed(population: int, drawn: int, differing: int) -> float:
    """Probability that a draw hits none of the differing: C(N - b, n) / C(N, n)."""
    same = population - differing
    if drawn > same:
        return 0.0
    return exp(
        lgamma(same + 1)
        - lgamma(same - drawn + 1)
        - lgamma(population + 1)
        + lgamma(population - drawn + 1)
    )


def _source(seed: str, disk_index: int, what: str) -> random.Random:
    return random.Random(f"{seed}/{disk_index}/{what}")


def _some(source: random.Random, areas: Sequence[Area], most: int) -> set[int]:
    """At most so many clusters of these areas."""
    clusters = ClusterSet(areas)
    return set(clusters.at(source.sample(range(len(clusters)), min(len(clusters), most))))
