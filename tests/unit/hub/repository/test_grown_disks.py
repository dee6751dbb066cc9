"""Layers over a base that is smaller: the disk grew within a cluster, or across regions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.repository import Repository
from sendense.clusters import (
    CLUSTER_BYTES,
    DIGEST_BYTES,
    REGION_BYTES,
    REGION_CLUSTERS,
    ZERO_DIGEST,
    cluster_count,
    region_count,
)
from sendense.codec import ClusterEncoder, EncodedClusters
from sendense.digests import clusters_in_region
from tests.unit.hub.repository.disks import (
    BackedUpDisk,
    Drawing,
    GuestDisk,
    assert_clean,
    assert_same_as_guest,
)

pytestmark = pytest.mark.hostile

LAST = REGION_CLUSTERS - 1
SIZES = {
    "by a sector within the last cluster": (4 * CLUSTER_BYTES + 512, 512),
    "to the end of the last cluster": (4 * CLUSTER_BYTES + 512, CLUSTER_BYTES - 512),
    "from a cluster's end by a sector": (4 * CLUSTER_BYTES, 512),
    "by clusters": (4 * CLUSTER_BYTES + 512, 9 * CLUSTER_BYTES),
    "to the end of the region": (4 * CLUSTER_BYTES + 512, REGION_BYTES - 4 * CLUSTER_BYTES - 512),
    "within the last cluster of a region": (REGION_BYTES - 1024, 512),
    "from a region's end by a sector": (REGION_BYTES, 512),
    "over the border of a region": (REGION_BYTES - 1024, 3 * CLUSTER_BYTES),
    "by regions": (REGION_BYTES + CLUSTER_BYTES, 2 * REGION_BYTES + 1536),
}
grown = pytest.mark.parametrize(("size", "growth"), SIZES.values(), ids=SIZES.keys())


def drawn(size: int, letters: str) -> Drawing:
    """Letters at the start of a disk and up to its last cluster."""
    last = cluster_count(size) - 1
    return {0: letters, max(0, last - 2): letters[-3:]}


def compared(backup: BackedUpDisk) -> Iterator[EncodedClusters]:
    """What a comparison sends: clusters with data now or in the base, where they differ."""
    assert backup.base is not None
    disk, encoder = backup.disk, ClusterEncoder()
    with backup.repository.open_base(backup.base, disk.capacity_bytes) as base:
        for region in range(region_count(disk.capacity_bytes)):
            digests = base.digests(region)
            for within in range(clusters_in_region(region, disk.capacity_bytes)):
                number = region * REGION_CLUSTERS + within
                held = ZERO_DIGEST if digests is None else digests[within].tobytes()
                assert len(held) == DIGEST_BYTES
                if number in disk.clusters or held != ZERO_DIGEST:
                    batch = encoder.encode(
                        number, disk.cluster(number), keep_zeros=False, base_digests=held
                    )
                    if len(batch):
                        yield batch


def back_up_compared(backup: BackedUpDisk) -> list[int]:
    """One job that compares; returns the clusters it sent."""
    job_id = f"job-{len(backup.layers)}"
    writer = backup.writer(job_id)
    sent = []
    for batch in compared(backup):
        writer.append(batch)
        sent += batch.numbers.tolist()
    backup.sealed_as(writer.seal(f"change/{job_id}"), job_id)
    return sent


def assert_sound(backup: BackedUpDisk, scratch: Path) -> None:
    image = backup.repository.path / backup.layers[-1].path
    assert_clean(image)
    assert_same_as_guest(image, backup.disk, scratch)
    assert backup.restored() == backup.disk.non_zero()
    assert backup.layers[-1].root_digest == backup.disk.root_digest()


@grown
def test_grown_disk_that_nobody_wrote_to_sends_nothing_and_reads_the_same(
    repository: Repository, tmp_path: Path, size: int, growth: int
) -> None:
    backup = BackedUpDisk(repository, GuestDisk(size))
    backup.backup(drawn(size, "AbCd"))
    backup.disk.capacity_bytes += growth
    assert back_up_compared(backup) == []
    assert_sound(backup, tmp_path)


@grown
def test_grown_disk_written_to_its_new_end_reads_as_the_guest_saw_it(
    repository: Repository, tmp_path: Path, size: int, growth: int
) -> None:
    backup = BackedUpDisk(repository, GuestDisk(size))
    backup.backup(drawn(size, "AbCd"))
    backup.disk.capacity_bytes += growth
    written = backup.disk.write(drawn(backup.disk.capacity_bytes, "0Xy"))
    assert set(back_up_compared(backup)) <= set(written)
    assert_sound(backup, tmp_path)
    # Another layer over both, as large as its base.
    backup.backup({1: "Z"})
    assert_sound(backup, tmp_path)


@grown
def test_old_point_of_a_grown_disk_keeps_its_size_and_bytes(
    repository: Repository, tmp_path: Path, size: int, growth: int
) -> None:
    backup = BackedUpDisk(repository, GuestDisk(size))
    backup.backup(drawn(size, "AbCd"))
    before = GuestDisk(size, dict(backup.disk.clusters))
    backup.disk.capacity_bytes += growth
    backup.backup(drawn(backup.disk.capacity_bytes, "WxYz"))
    assert_sound(backup, tmp_path)
    assert_same_as_guest(repository.path / backup.layers[0].path, before, tmp_path)
    with repository.open_chain(backup.paths[1:]) as chain:
        assert chain.capacity_bytes == size


def test_disk_that_grew_at_each_of_many_backups_is_sound(
    repository: Repository, tmp_path: Path
) -> None:
    backup = BackedUpDisk(repository, GuestDisk(LAST * CLUSTER_BYTES - 512))
    backup.backup({0: "Ab", LAST - 1: "C"})
    for growth in (512, 1024, CLUSTER_BYTES, CLUSTER_BYTES - 1024, 512, REGION_BYTES):
        backup.disk.capacity_bytes += growth
        end = cluster_count(backup.disk.capacity_bytes)
        written = backup.disk.write({end - 2: "qR"})
        assert set(back_up_compared(backup)) == set(written)
        assert_sound(backup, tmp_path)


def test_data_zeroed_on_a_grown_disk_does_not_come_back(
    repository: Repository, tmp_path: Path
) -> None:
    backup = BackedUpDisk.drawn(repository, "AbCd", beyond=512)
    backup.backup({4: "e"})
    backup.disk.capacity_bytes += 2 * CLUSTER_BYTES
    backup.disk.write({0: "0", 4: "0"})
    assert back_up_compared(backup) == [0, 4]
    assert backup.layers[-1].zero_cluster_count == 2
    assert_sound(backup, tmp_path)
