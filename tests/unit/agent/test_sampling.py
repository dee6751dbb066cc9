"""Which clusters are read to check tracking and allocation, and what the check is worth."""

from collections import Counter
from fractions import Fraction
from itertools import product
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.areas import Area, to_clusters, whole_disk
from agent.sampling import (
    Draw,
    Sample,
    SampleSettings,
    Unread,
    choose_sample,
    undetected_bound,
)
from sendense.clusters import CLUSTER_BYTES, cluster_count

pytestmark = pytest.mark.hostile

TIB = 1 << 40
DEFAULTS = SampleSettings()
ONLY_EVENLY = SampleSettings(fraction=0.4, least=2, first=0, neighbours=0)


def clusters(*runs: tuple[int, int]) -> list[Area]:
    """(first, one after the last) as areas."""
    return [Area(a * CLUSTER_BYTES, (b - a) * CLUSTER_BYTES) for a, b in runs]


def members(areas: list[Area]) -> set[int]:
    return {
        number
        for area in areas
        for number in range(area.start // CLUSTER_BYTES, -(-area.end // CLUSTER_BYTES))
    }


def sampled(
    read: list[Area],
    allocation: list[Area],
    capacity: int,
    *,
    job: str = "job-1",
    disk: int = 0,
    method: str = "changed",
    how: SampleSettings = DEFAULTS,
) -> Sample:
    return choose_sample(job, disk, method, Unread.beside(read, allocation, capacity), how)


def test_sample_is_the_same_for_the_same_disk_of_the_same_job() -> None:
    disk = (clusters((500, 510)), clusters((0, 9000)), 20000 * CLUSTER_BYTES)
    once = sampled(*disk)
    assert sampled(*disk) == once
    others = [
        sampled(*disk, job="job-2"),
        sampled(*disk, disk=1),
        sampled(*disk, method="compared"),
    ]
    for other in others:
        assert other.draws == once.draws
        assert other.clusters != once.clusters


def test_sample_has_a_part_of_each_kind() -> None:
    read, allocation = clusters((30_000, 30_010), (90_000, 90_001)), clusters((20_000, 150_000))
    sample = sampled(read, allocation, 400_000 * CLUSTER_BYTES)
    # 0.1 % of what tracking calls unchanged, and of what the host calls unallocated.
    assert sample.draws == (Draw(130_000 - 11, 130), Draw(270_000, 270))
    assert sample.population == 400_000 - 11
    chosen = set(sample.clusters)
    assert {29_999, 30_010, 89_999, 90_001} <= chosen
    assert len([n for n in chosen if n < 64]) >= 16
    assert len([n for n in chosen if n >= 150_000]) > 200
    assert sample.clusters == sorted(chosen)
    assert 400 <= len(chosen) <= 400 + 16 + 4


def test_at_least_64_clusters_of_each_stratum_are_drawn_or_all_there_are() -> None:
    half = sampled([], clusters((0, 1000)), 2000 * CLUSTER_BYTES)
    assert half.draws == (Draw(1000, 64), Draw(1000, 64))
    few = sampled(clusters((0, 3)), clusters((0, 20)), 40 * CLUSTER_BYTES)
    assert few.draws == (Draw(17, 17), Draw(20, 20))
    assert few.clusters == list(range(3, 40))
    assert undetected_bound(few.draws) == 1


def test_disk_of_16_tib_is_sampled_without_listing_its_clusters() -> None:
    sample = sampled(clusters((7, 8)), whole_disk(16 * TIB), 16 * TIB)
    assert sample.population == 16 * TIB // CLUSTER_BYTES - 1
    assert sample.draws[0].drawn == 268_436
    assert sample.clusters[-1] > 0.99 * sample.population


def test_disk_that_is_read_whole_or_has_no_bytes_has_an_empty_sample() -> None:
    for sample in (sampled(whole_disk(TIB), whole_disk(TIB), TIB), sampled([], [], 0)):
        assert sample == Sample([], (Draw(0, 0), Draw(0, 0)))
        assert undetected_bound(sample.draws) == 1


runs = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=8)


@settings(deadline=None, max_examples=200)
@given(runs, runs, st.integers(1, 320), st.integers(0, CLUSTER_BYTES - 1))
def test_sample_is_of_every_cluster_that_is_not_read(
    read_runs: list[tuple[int, int]],
    allocated_runs: list[tuple[int, int]],
    count: int,
    cut_bytes: int,
) -> None:
    capacity = count * CLUSTER_BYTES - cut_bytes
    read, allocation = (
        to_clusters(clusters(*[(first, first + length) for first, length in some]), capacity)
        for some in (read_runs, allocated_runs)
    )
    disk = set(range(cluster_count(capacity)))
    unread = Unread.beside(read, allocation, capacity)
    assert members(unread.areas) == disk - members(read)
    assert members(unread.allocated) == members(allocation) - members(read)
    assert members(unread.unallocated) == disk - members(read) - members(allocation)

    sample = choose_sample("job-1", 0, "changed", unread, DEFAULTS)
    chosen = set(sample.clusters)
    assert chosen <= disk - members(read)
    assert sample.population == len(disk - members(read))
    for draw, stratum in zip(sample.draws, (unread.allocated, unread.unallocated), strict=True):
        assert draw.population == len(members(stratum))
        assert draw.drawn == min(64, draw.population) <= len(chosen & members(stratum))


def test_beside_what_is_read_are_its_neighbours_on_the_disk() -> None:
    how = SampleSettings(fraction=0, least=0, first=0, neighbours=99)
    read = clusters((0, 2), (5, 7), (8, 9), (15, 20))
    # 7 has something on both sides; before 0 and after 19 there is no disk.
    assert sampled(read, [], 20 * CLUSTER_BYTES, how=how).clusters == [2, 4, 7, 9, 14]
    assert sampled([], [], 20 * CLUSTER_BYTES, how=how).clusters == []
    assert sampled(clusters((3, 4)), [], 20 * CLUSTER_BYTES - 1, how=how).clusters == [2, 4]


def test_every_set_of_each_stratum_is_drawn_as_often_as_any_other() -> None:
    """Of 5 allocated clusters 2 and of 6 others 3: 200 samples, each in 1 of 200 jobs."""
    jobs = 20_000
    seen = Counter(
        tuple(
            sampled(
                clusters((3, 4)),
                clusters((1, 7)),
                12 * CLUSTER_BYTES,
                job=f"job-{number}",
                how=ONLY_EVENLY,
            ).clusters
        )
        for number in range(jobs)
    )
    assert len(seen) == comb(5, 2) * comb(6, 3)
    expected = jobs / len(seen)
    chi_squared = sum((count - expected) ** 2 / expected for count in seen.values())
    # 199 degrees of freedom: 5 standard deviations of 20 above the mean. The jobs are fixed.
    assert chi_squared < 199 + 5 * 20


def all_missed(draw: Draw, differing: int) -> Fraction:
    return Fraction(
        comb(draw.population - differing, draw.drawn), comb(draw.population, draw.drawn)
    )


@pytest.mark.parametrize(
    "draw",
    [Draw(1, 1), Draw(64, 64), Draw(65, 64), Draw(97, 1), Draw(1000, 64), Draw(40_000, 64)],
    ids=str,
)
def test_bound_of_one_stratum_is_the_smallest_that_its_draw_would_have_hit(draw: Draw) -> None:
    for draws in ([draw], [draw, Draw(0, 0)], [Draw(0, 0), draw], [draw, Draw(9, 9)]):
        bound = undetected_bound(draws)
        assert all_missed(draw, bound) <= Fraction(5, 100)
        assert bound == 1 or all_missed(draw, bound - 1) > Fraction(5, 100)


SMALL = [Draw(population, drawn) for population in range(13) for drawn in range(population + 1)]


def test_as_many_as_the_bound_are_missed_by_both_draws_in_1_of_20_samples_at_most() -> None:
    """For all small strata, and however the differing clusters lie in them."""
    for first, second in product(SMALL, repeat=2):
        bound = undetected_bound([first, second])
        whole = first.population + second.population
        assert 1 <= bound <= whole + 1
        for here in range(first.population + 1):
            for there in range(max(0, bound - here), second.population + 1):
                chance = all_missed(first, here) * all_missed(second, there)
                assert chance <= Fraction(5, 100), (first, second, here, there)


def test_bound_of_a_large_disk_is_about_3_in_as_many_as_were_drawn_of_each_stratum() -> None:
    population = 16 * TIB // CLUSTER_BYTES
    draw = Draw(population, population // 1000)
    one = undetected_bound([draw])
    assert 2900 < one < 3000
    assert undetected_bound([draw, draw]) == 2 * one - 1


def test_nothing_drawn_bounds_nothing() -> None:
    assert undetected_bound([Draw(100, 0)]) == 101
    assert undetected_bound([Draw(100, 0), Draw(50, 0)]) == 151
    assert undetected_bound([]) == 1
