"""Which clusters are read to check tracking and allocation, and what the check is worth."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.areas import Area, to_clusters, whole_disk
from agent.sampling import (
    Sample,
    SampleSettings,
    choose_sample,
    choose_unallocated,
    undetected_bound,
)
from sendense.clusters import CLUSTER_BYTES, cluster_count

pytestmark = pytest.mark.hostile

TIB = 1 << 40
DEFAULTS = SampleSettings()


def clusters(*runs: tuple[int, int]) -> list[Area]:
    """(first, one after the last) as areas."""
    return [Area(a * CLUSTER_BYTES, (b - a) * CLUSTER_BYTES) for a, b in runs]


def members(areas: list[Area]) -> set[int]:
    return {
        number
        for area in areas
        for number in range(area.start // CLUSTER_BYTES, -(-area.end // CLUSTER_BYTES))
    }


def drawn(changed: list[Area], allocated: list[Area], capacity: int, job: str = "job-1") -> Sample:
    return choose_sample(job, 0, changed, allocated, capacity, DEFAULTS)


def test_sample_is_the_same_for_the_same_disk_of_the_same_job() -> None:
    disk = (clusters((500, 510)), clusters((0, 9000)), 20000 * CLUSTER_BYTES)
    once = choose_sample("job-1", 0, *disk, DEFAULTS)
    assert choose_sample("job-1", 0, *disk, DEFAULTS) == once
    assert choose_sample("job-2", 0, *disk, DEFAULTS).clusters != once.clusters
    assert choose_sample("job-1", 1, *disk, DEFAULTS).clusters != once.clusters


def test_sample_has_a_part_of_each_kind() -> None:
    changed, allocated = clusters((30_000, 30_010), (90_000, 90_001)), clusters((20_000, 150_000))
    sample = drawn(changed, allocated, 200_000 * CLUSTER_BYTES)
    assert sample.population == 130_000 - 11
    assert sample.drawn_evenly == 130  # 0.1 %
    chosen = set(sample.clusters)
    assert len([n for n in chosen if n < 64]) >= 16
    assert {29_999, 30_010, 89_999, 90_001} <= chosen
    outside = [n for n in chosen if n >= 64 and not 20_000 <= n < 150_000]
    assert len(outside) >= 15  # of 16, one may lie at the disk's start
    assert sample.clusters == sorted(chosen)


def test_at_least_64_clusters_are_drawn_or_all_there_are() -> None:
    assert drawn([], clusters((0, 1000)), 1000 * CLUSTER_BYTES).drawn_evenly == 64
    few = drawn(clusters((0, 3)), clusters((0, 20)), 20 * CLUSTER_BYTES)
    assert (few.drawn_evenly, few.population) == (17, 17)
    assert few.clusters == list(range(3, 20))


def test_disk_of_16_tib_is_sampled_without_listing_its_clusters() -> None:
    sample = drawn(clusters((7, 8)), whole_disk(16 * TIB), 16 * TIB)
    assert sample.population == 16 * TIB // CLUSTER_BYTES - 1
    assert sample.drawn_evenly == 268_436
    assert sample.clusters[-1] > 0.99 * sample.population


def test_disk_without_bytes_has_an_empty_sample() -> None:
    assert drawn([], [], 0) == Sample([], 0, 0)
    assert choose_unallocated("job-1", 0, [], 0, DEFAULTS) == Sample([])


runs = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=8).map(
    lambda drawn_runs: to_clusters(
        clusters(*[(first, first + length) for first, length in drawn_runs]), 1 << 30
    )
)


@settings(deadline=None, max_examples=200)
@given(runs, runs, st.integers(1, 320), st.integers(0, CLUSTER_BYTES - 1))
def test_sample_lies_on_the_disk_and_outside_of_what_changed(
    changed: list[Area], allocated: list[Area], count: int, cut_bytes: int
) -> None:
    capacity = count * CLUSTER_BYTES - cut_bytes
    sample = drawn(changed, allocated, capacity)
    chosen, disk = set(sample.clusters), set(range(cluster_count(capacity)))
    unchanged = (members(allocated) & disk) - members(changed)
    assert chosen <= disk - members(changed)
    assert sample.population == len(unchanged)
    assert sample.drawn_evenly == min(64, len(unchanged)) <= len(chosen & unchanged)
    rest = choose_unallocated("job-1", 0, allocated, capacity, DEFAULTS)
    assert set(rest.clusters) <= disk - members(allocated)
    assert len(rest.clusters) == min(16, len(disk - members(allocated)))


def all_missed(population: int, sampled: int, differing: int) -> Fraction:
    return Fraction(comb(population - differing, sampled), comb(population, sampled))


@pytest.mark.parametrize(
    ("population", "sampled"), [(1, 1), (64, 64), (65, 64), (97, 1), (1000, 64), (40_000, 64)]
)
def test_bound_is_the_smallest_number_that_the_sample_would_have_hit(
    population: int, sampled: int
) -> None:
    bound = undetected_bound(population, sampled)
    assert all_missed(population, sampled, bound) <= Fraction(5, 100)
    assert bound == 1 or all_missed(population, sampled, bound - 1) > Fraction(5, 100)


def test_bound_of_a_large_disk_is_about_3_in_as_many_as_were_drawn() -> None:
    population = 16 * TIB // CLUSTER_BYTES
    bound = undetected_bound(population, population // 1000)
    assert 2900 < bound < 3000


def test_nothing_drawn_bounds_nothing_and_no_population_leaves_none() -> None:
    assert undetected_bound(100, 0) == 101
    assert undetected_bound(0, 0) == 1
