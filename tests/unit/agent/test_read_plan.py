"""What is read of a disk by each method, region by region."""

from collections.abc import Generator, Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.areas import Area, by_region, merge, subtract, to_clusters, total_bytes, whole_disk
from agent.cluster_sets import ClusterSet, areas_of, runs_of
from agent.read_plan import ReadPlan, RegionRead
from sendense.clusters import (
    CLUSTER_BYTES,
    DIGEST_BYTES,
    REGION_BYTES,
    REGION_CLUSTERS,
    ZERO_DIGEST,
    cluster_count,
)
from sendense.v1 import backup_pb2

pytestmark = pytest.mark.hostile

DATA = b"d" * DIGEST_BYTES
# Clusters around a region's end: what is right there is right elsewhere.
LOW, HIGH = REGION_CLUSTERS - 30, REGION_CLUSTERS + 30
property_of = settings(deadline=None, max_examples=100)

near_the_edge = st.sets(st.integers(LOW, HIGH))


class Base:
    """A base in memory: these clusters have data, as many as the disk's others have zeros."""

    def __init__(self, data: set[int]) -> None:
        self.data = data
        self.questions = 0

    def ask(self, regions: Iterable[list[Area]]) -> Generator[tuple[list[Area], bytes], None, None]:
        self.questions += 1
        for areas in regions:
            yield areas, b"".join(DATA if n in self.data else ZERO_DIGEST for n in numbers(areas))

    def close(self) -> None:
        pass


def numbers(areas: Iterable[Area]) -> Iterator[int]:
    for area in areas:
        yield from range(area.start // CLUSTER_BYTES, -(-area.end // CLUSTER_BYTES))


def held(reads: list[RegionRead]) -> dict[int, bytes]:
    """What the base holds in each cluster that is read."""
    return {
        number: read.base_digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES]
        for read in reads
        if read.base_digests is not None
        for at, number in enumerate(numbers(read.areas))
    }


def checked(reads: list[RegionRead], capacity: int) -> list[RegionRead]:
    """The rules of any plan's reads."""
    areas = [area for read in reads for area in read.areas]
    assert areas == sorted(areas)
    assert total_bytes(areas) == total_bytes(merge(areas))
    for read in reads:
        assert read.areas
        assert len({a.start // REGION_BYTES for a in read.areas}) == 1
        assert all(a.start % CLUSTER_BYTES == 0 for a in read.areas)
        assert all(a.end % CLUSTER_BYTES == 0 or a.end == capacity for a in read.areas)
        assert all(a.start // REGION_BYTES == (a.end - 1) // REGION_BYTES for a in read.areas)
    return reads


@property_of
@given(near_the_edge, near_the_edge, st.integers(LOW + 1, HIGH), st.integers(0, CLUSTER_BYTES - 1))
def test_comparison_reads_what_is_allocated_or_has_data_in_the_base(
    allocated: set[int], data: set[int], count: int, cut_bytes: int
) -> None:
    capacity = count * CLUSTER_BYTES - cut_bytes
    allocated = {n for n in allocated if n < count}
    base = Base({n for n in data if n < count})
    plan = ReadPlan.compared(areas_of(sorted(allocated), capacity), base, capacity)  # type: ignore[arg-type]
    reads = checked(list(plan.regions()), capacity)
    assert held(reads) == {
        n: DATA if n in base.data else ZERO_DIGEST for n in allocated | base.data
    }
    assert plan.method == backup_pb2.READ_METHOD_COMPARED
    assert plan.bytes_planned == sum(total_bytes(read.areas) for read in reads)
    # Once to see the base whole before the upload, once for the upload.
    assert base.questions == 2
    assert list(plan.regions()) == reads


@property_of
@given(near_the_edge, near_the_edge)
def test_increment_reads_what_changed_with_what_the_base_holds_there(
    changed: set[int], data: set[int]
) -> None:
    capacity = (HIGH + 1) * CLUSTER_BYTES - 512
    plan = ReadPlan.changed(areas_of(sorted(changed), capacity), Base(data))  # type: ignore[arg-type]
    reads = checked(list(plan.regions()), capacity)
    assert held(reads) == {n: DATA if n in data else ZERO_DIGEST for n in changed}
    assert plan.bytes_planned == sum(total_bytes(read.areas) for read in reads)


def test_full_reads_its_areas_without_a_base() -> None:
    areas = [Area(0, CLUSTER_BYTES), Area(REGION_BYTES - CLUSTER_BYTES, 2 * CLUSTER_BYTES)]
    plan = ReadPlan.allocated(areas)
    reads = checked(list(plan.regions()), 1 << 40)
    assert [read.areas for read in reads] == [
        [areas[0], Area(REGION_BYTES - CLUSTER_BYTES, CLUSTER_BYTES)],
        [Area(REGION_BYTES, CLUSTER_BYTES)],
    ]
    assert all(read.base_digests is None for read in reads)
    assert (plan.bytes_planned, plan.base) == (3 * CLUSTER_BYTES, None)


def test_regions_of_a_disk_of_62_tib_are_cut_lazily() -> None:
    regions = by_region(whole_disk(62 << 40))
    assert next(regions) == [Area(0, REGION_BYTES)]
    assert next(regions) == [Area(REGION_BYTES, REGION_BYTES)]


sets_of_areas = st.sets(st.integers(0, 120)).map(
    lambda members: [
        Area(first * 512, (end - first) * 512) for first, end in runs_of(sorted(members))
    ]
)


@property_of
@given(sets_of_areas, sets_of_areas)
def test_subtract_leaves_the_bytes_that_are_in_the_first_alone(
    areas: list[Area], without: list[Area]
) -> None:
    def units(some: list[Area]) -> set[int]:
        return {unit for a in some for unit in range(a.start // 512, a.end // 512)}

    rest = subtract(areas, without)
    assert units(rest) == units(areas) - units(without)
    assert rest == merge(rest)


@property_of
@given(near_the_edge, near_the_edge)
def test_cluster_set_knows_its_members_and_their_order(members: set[int], asked: set[int]) -> None:
    capacity = (HIGH + 1) * CLUSTER_BYTES - 1000
    areas = areas_of(sorted(members), capacity)
    assert areas == to_clusters(areas, capacity)
    assert cluster_count(total_bytes(areas)) == len(members)
    clusters = ClusterSet(areas)
    assert len(clusters) == len(members)
    assert clusters.at(range(len(members))) == sorted(members)
    questions = np.array(sorted(asked), np.int64)
    assert clusters.contains(questions).tolist() == [n in members for n in sorted(asked)]


@property_of
@given(near_the_edge, st.integers(LOW - 1, HIGH), st.integers(0, CLUSTER_BYTES - 1))
def test_plan_behind_a_cluster_reads_what_is_behind_it(
    members: set[int], cluster: int, cut_bytes: int
) -> None:
    capacity = (HIGH + 1) * CLUSTER_BYTES - cut_bytes
    plan = ReadPlan.allocated(areas_of(sorted(members), capacity))
    left = plan.behind(cluster)
    checked(list(left.regions()), capacity)
    assert set(numbers(left.areas)) == {n for n in members if n > cluster}
    read_before = [area for area in plan.areas if area.start <= cluster * CLUSTER_BYTES]
    assert left.areas == subtract(plan.areas, [Area(0, (cluster + 1) * CLUSTER_BYTES)])
    assert bool(read_before) or left.areas == plan.areas


def test_digest_of_a_plan_tells_plans_apart_and_nothing_else() -> None:
    areas = [Area(0, CLUSTER_BYTES), Area(4 * CLUSTER_BYTES, CLUSTER_BYTES)]
    plan = ReadPlan.allocated(areas)
    digests = [
        plan.digest(1 << 20),
        plan.digest(1 << 21),
        ReadPlan.allocated(areas[:1]).digest(1 << 20),
        ReadPlan.changed(areas, Base(set())).digest(1 << 20),  # type: ignore[arg-type]
    ]
    assert len(set(digests)) == len(digests)
    assert {len(digest) for digest in digests} == {16}
    assert ReadPlan.allocated(list(areas)).digest(1 << 20) == digests[0]
