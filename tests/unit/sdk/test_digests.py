"""Region digests and roots, against the plain definition of docs/formats.md."""

import random

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from sendense.clusters import (
    CLUSTER_BYTES,
    REGION_BYTES,
    REGION_CLUSTERS,
    cluster_count,
    region_count,
)
from sendense.digests import (
    DiskDigests,
    clusters_in_region,
    region_digest,
    root_digest,
    zero_region_digest,
)

ZERO = blake3(bytes(65536)).digest()[:16]


@pytest.mark.parametrize(
    ("capacity_bytes", "clusters", "regions", "in_last"),
    [
        (512, 1, 1, 1),
        (CLUSTER_BYTES, 1, 1, 1),
        (CLUSTER_BYTES + 512, 2, 1, 2),
        (REGION_BYTES, 8192, 1, 8192),
        (REGION_BYTES + 512, 8193, 2, 1),
        (16 << 40, 1 << 28, 1 << 15, 8192),
    ],
)
def test_units_of_a_disk(capacity_bytes: int, clusters: int, regions: int, in_last: int) -> None:
    assert cluster_count(capacity_bytes) == clusters
    assert region_count(capacity_bytes) == regions
    assert clusters_in_region(regions - 1, capacity_bytes) == in_last


@given(
    sectors=st.integers(1, 3 * REGION_BYTES // 512),
    seed=st.integers(0, 1 << 30),
    count=st.integers(0, 20),
)
@settings(deadline=None, max_examples=30)
def test_digests_are_those_of_the_definition(sectors: int, seed: int, count: int) -> None:
    capacity_bytes = sectors * 512
    noise = random.Random(seed)
    clusters = cluster_count(capacity_bytes)
    borders = [0, REGION_CLUSTERS - 1, REGION_CLUSTERS, clusters - 1]
    written = {noise.choice([noise.randrange(clusters), *borders]) for _ in range(count)}
    digests = {n: noise.randbytes(16) for n in written if n < clusters}
    collected = DiskDigests(capacity_bytes)
    for number in sorted(digests):
        collected.add(number, digests[number])
    regions, root = collected.finish()

    everything = b"".join(digests.get(n, ZERO) for n in range(clusters))
    step = REGION_CLUSTERS * 16
    expected = [
        blake3(everything[at : at + step]).digest() for at in range(0, len(everything), step)
    ]
    assert regions == expected
    assert root == blake3(b"".join(expected)).digest()


def test_zero_region_is_the_digest_of_zero_clusters() -> None:
    for clusters in (1, 17, REGION_CLUSTERS):
        assert zero_region_digest(clusters) == region_digest(ZERO * clusters)


def test_root_tells_disks_of_different_size_apart() -> None:
    roots = {
        root_digest(DiskDigests(size).finish()[0])
        for size in (CLUSTER_BYTES, 2 * CLUSTER_BYTES, REGION_BYTES, REGION_BYTES + 512)
    }
    assert len(roots) == 4


def test_last_digest_of_a_cluster_counts_within_its_region() -> None:
    twice, once = DiskDigests(REGION_BYTES), DiskDigests(REGION_BYTES)
    twice.add(3, b"a" * 16)
    twice.add(3, b"b" * 16)
    once.add(3, b"b" * 16)
    assert twice.finish() == once.finish()
