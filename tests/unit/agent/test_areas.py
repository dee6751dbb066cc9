from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.areas import (
    EXTENT_BYTES,
    Area,
    merge,
    split_extents,
    to_clusters,
    total_bytes,
    whole_disk,
)
from sendense.clusters import CLUSTER_BYTES, REGION_BYTES

# The model: a set of sectors of a small disk. Four sectors stand for a cluster's
# parts, so that areas off the cluster grid are drawn often.
UNIT = CLUSTER_BYTES // 4
LIMIT = 600  # units: more than four extents

areas_st = st.lists(
    st.builds(
        lambda start, length: Area(start * UNIT, length * UNIT),
        st.integers(0, LIMIT),
        st.integers(0, 200),
    ),
    max_size=12,
)
property_of = settings(deadline=None, max_examples=200)


def units(areas: list[Area]) -> set[int]:
    return {unit for a in areas for unit in range(a.start // UNIT, a.end // UNIT)}


@property_of
@given(areas_st)
def test_merge_keeps_the_bytes_and_leaves_gaps_between_areas(areas: list[Area]) -> None:
    merged = merge(areas)
    assert units(merged) == units(areas)
    assert total_bytes(merged) == len(units(areas)) * UNIT
    assert all(a.length > 0 for a in merged)
    assert all(a.end < b.start for a, b in pairwise(merged))


@property_of
@given(areas_st, st.integers(1, LIMIT * UNIT))
def test_to_clusters_covers_whole_clusters_up_to_the_capacity(
    areas: list[Area], capacity_bytes: int
) -> None:
    inside = {unit for unit in units(areas) if unit * UNIT < capacity_bytes}
    clusters = {unit * UNIT // CLUSTER_BYTES for unit in inside}
    aligned = to_clusters(areas, capacity_bytes)
    covered = {
        number
        for a in aligned
        for number in range(a.start // CLUSTER_BYTES, -(-a.end // CLUSTER_BYTES))
    }
    assert covered == clusters
    for area in aligned:
        assert area.start % CLUSTER_BYTES == 0
        assert area.end % CLUSTER_BYTES == 0 or area.end == capacity_bytes
        assert area.end <= capacity_bytes
    assert aligned == merge(aligned)


@property_of
@given(areas_st)
def test_split_gives_the_same_bytes_in_pieces_of_one_extent(areas: list[Area]) -> None:
    merged = merge(areas)
    pieces = list(split_extents(merged))
    assert merge(pieces) == merged
    assert pieces == sorted(pieces)
    assert total_bytes(pieces) == total_bytes(merged)
    for piece in pieces:
        assert 0 < piece.length <= EXTENT_BYTES
        assert piece.start // EXTENT_BYTES == (piece.end - 1) // EXTENT_BYTES


def test_split_never_crosses_a_region_boundary() -> None:
    around = Area(REGION_BYTES - 3 * CLUSTER_BYTES, 6 * CLUSTER_BYTES)
    assert list(split_extents([around])) == [
        Area(REGION_BYTES - 3 * CLUSTER_BYTES, 3 * CLUSTER_BYTES),
        Area(REGION_BYTES, 3 * CLUSTER_BYTES),
    ]


def test_split_is_lazy_for_a_disk_of_62_tib() -> None:
    pieces = split_extents(whole_disk(62 << 40))
    assert next(pieces) == Area(0, EXTENT_BYTES)
    assert next(pieces) == Area(EXTENT_BYTES, EXTENT_BYTES)


def test_whole_disk_off_the_cluster_grid_ends_at_its_capacity() -> None:
    capacity = 5 * CLUSTER_BYTES + 512
    assert to_clusters(whole_disk(capacity), capacity) == [Area(0, capacity)]
    assert whole_disk(0) == []
