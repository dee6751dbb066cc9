"""What a base is said to hold is what the guest had, checked; behind its end there are zeros."""

import os
from pathlib import Path

import pytest

from hub.repository import BaseReader, LayerBase, LayerDamaged, Repository
from hub.repository.journal import JournalReader
from hub.repository.paths import manifest_path
from sendense.clusters import (
    CLUSTER_BYTES,
    REGION_BYTES,
    REGION_CLUSTERS,
    ZERO_DIGEST,
    cluster_digest,
)
from shared.errors import InvalidArgument
from tests.unit.hub.repository.disks import BackedUpDisk, GuestDisk

pytestmark = pytest.mark.hostile


@pytest.fixture
def backup(repository: Repository) -> BackedUpDisk:
    """Two regions and a bit; the second was never written, the third is zeros over data."""
    made = BackedUpDisk(repository, GuestDisk(2 * REGION_BYTES + 3 * CLUSTER_BYTES + 512))
    made.backup({0: "AbCd", 2 * REGION_CLUSTERS: "EfGh"})
    made.backup({1: "0X", 2 * REGION_CLUSTERS: "0000"})
    return made


def opened(backup: BackedUpDisk, grown_bytes: int = 0) -> BaseReader:
    assert backup.base is not None
    return backup.repository.open_base(backup.base, backup.disk.capacity_bytes + grown_bytes)


def test_digests_are_those_of_the_guests_clusters(backup: BackedUpDisk) -> None:
    with opened(backup) as base:
        digests = base.digests(0)
    assert digests is not None
    assert digests.shape == (REGION_CLUSTERS, 16)
    for number in range(6):
        assert digests[number].tobytes() == cluster_digest(backup.disk.cluster(number))
    assert digests[1].tobytes() == ZERO_DIGEST
    assert {digest.tobytes() for digest in digests[4:]} == {ZERO_DIGEST}


@pytest.mark.parametrize("region", [1, 2], ids=["never written", "written over with zeros"])
def test_region_of_zeros_has_no_digests(backup: BackedUpDisk, region: int) -> None:
    with opened(backup) as base:
        assert base.digests(region) is None


def test_older_point_of_a_chain_is_read_as_it_was(backup: BackedUpDisk) -> None:
    full = LayerBase(backup.layers[0].path, "job-0", 0, "change/job-0")
    with backup.repository.open_base(full, backup.disk.capacity_bytes) as base:
        digests = base.digests(2)
    assert digests is not None
    assert len(digests) == 4
    assert ZERO_DIGEST not in {digest.tobytes() for digest in digests}


def test_disk_that_grew_has_zeros_behind_its_base(repository: Repository) -> None:
    backup = BackedUpDisk.drawn(repository, "ABc", beyond=512)
    backup.backup({3: "d"})
    with opened(backup, grown_bytes=REGION_BYTES) as base:
        first, second = base.digests(0), base.digests(1)
    assert second is None
    assert first is not None
    assert len(first) == REGION_CLUSTERS
    # The last cluster of the base was padded with zeros, as it is on the grown disk.
    assert first[3].tobytes() == cluster_digest(backup.disk.cluster(3))
    assert {digest.tobytes() for digest in first[4:]} == {ZERO_DIGEST}


def test_disk_smaller_than_its_base_is_refused(backup: BackedUpDisk) -> None:
    with pytest.raises(LayerDamaged, match="is larger"):
        opened(backup, grown_bytes=-1)


def test_base_that_is_another_jobs_is_refused(backup: BackedUpDisk) -> None:
    wrong = LayerBase(backup.layers[0].path, "job-1", 0, "change/job-1")
    with pytest.raises(LayerDamaged, match="belongs to"):
        backup.repository.open_base(wrong, backup.disk.capacity_bytes)


def test_path_that_no_layer_has_is_refused(backup: BackedUpDisk) -> None:
    with pytest.raises(InvalidArgument):
        backup.repository.open_base(LayerBase("../x", "job-1", 0, ""), 1 << 30)


@pytest.mark.parametrize("layer", [0, 1], ids=["full", "increment"])
def test_digests_of_a_damaged_manifest_are_never_told(backup: BackedUpDisk, layer: int) -> None:
    path = backup.repository.path / manifest_path(backup.layers[layer].path)
    with JournalReader(path) as journal:
        placed = next(journal.frames())
    damage(path, placed.record_at + placed.record_bytes - 1)
    with opened(backup) as base, pytest.raises(LayerDamaged):
        base.digests(0)


def test_layers_that_do_not_make_what_was_sealed_are_noticed(
    backup: BackedUpDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that are whole, but not all of them: only the region's digest tells."""
    with opened(backup) as base:
        full = base._layers[1]
        frames = full.frames
        monkeypatch.setattr(full, "frames", lambda region: frames(region)[1:])
        with pytest.raises(LayerDamaged, match="region 0 of its chain is not what was sealed"):
            base.digests(0)


def damage(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))
        file.flush()
        os.fsync(file.fileno())
