"""Chains: what they refuse, and how they read."""

import os
import shutil
from pathlib import Path

import pytest

from hub.repository import LayerBase, LayerDamaged, Repository
from hub.repository.journal import JournalReader
from hub.repository.paths import manifest_path
from sendense.clusters import CLUSTER_BYTES, REGION_BYTES
from sendense.codec import ClusterDamaged, ClusterDecoder
from shared.errors import InvalidArgument
from tests.unit.hub.repository.disks import BackedUpDisk, GuestDisk, identity


@pytest.fixture
def backup(repository: Repository) -> BackedUpDisk:
    made = BackedUpDisk.drawn(repository, "AbCdEf")
    made.backup({1: "XY"})
    made.backup({3: "0z"})
    return made


def replace_job(repository: Repository, job: str, by: BackedUpDisk) -> None:
    """Put another repository's job folder in the place of this one's."""
    folder = repository.path / "ctx-backup-pgtest1-1" / job
    shutil.rmtree(folder)
    shutil.copytree(by.repository.path / "ctx-backup-pgtest1-1" / job, folder)


def test_every_point_of_a_chain_can_be_restored(backup: BackedUpDisk) -> None:
    expected = [{0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 4, 5}]
    for age, clusters in enumerate(expected, start=1):
        with backup.repository.open_chain(backup.paths[-age:]) as chain:
            found = {n for batch in chain.batches() for n in batch.numbers.tolist()}
            assert found == clusters
            assert chain.root_digest == backup.layers[age - 1].root_digest


@pytest.mark.parametrize("order", [[0, 1], [1, 0, 2], [0, 2], [0, 1, 2, 2]], ids=str)
def test_layers_that_are_not_the_chain_are_refused(backup: BackedUpDisk, order: list[int]) -> None:
    with pytest.raises(LayerDamaged):
        backup.repository.open_chain([backup.paths[index] for index in order])


@pytest.mark.parametrize(
    "path", ["disk-0.qcow2", "a/b/../disk-0.qcow2", "/a/b/disk.qcow2", "a/../x.qcow2", "a/b/c.raw"]
)
def test_path_that_no_layer_has_is_refused(repository: Repository, path: str) -> None:
    with pytest.raises(InvalidArgument):
        repository.open_chain([path])


def test_empty_chain_is_refused(repository: Repository) -> None:
    with pytest.raises(InvalidArgument):
        repository.open_chain([])


@pytest.mark.parametrize("age", [0, 1, 2])
@pytest.mark.parametrize("kind", ["layer", "manifest"])
def test_missing_file_of_a_chain_is_named(backup: BackedUpDisk, age: int, kind: str) -> None:
    path = backup.paths[age] if kind == "layer" else manifest_path(backup.paths[age])
    (backup.repository.path / path).unlink()
    with pytest.raises(LayerDamaged, match="No such file") as damaged:
        backup.repository.open_chain(backup.paths)
    assert damaged.value.path == path


def test_layer_of_another_length_is_named(backup: BackedUpDisk) -> None:
    path = backup.repository.path / backup.paths[1]
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(LayerDamaged, match="bytes long") as damaged:
        backup.repository.open_chain(backup.paths)
    assert damaged.value.path == backup.paths[1]


def test_base_exchanged_for_one_of_the_same_name_is_refused(
    backup: BackedUpDisk, tmp_path: Path
) -> None:
    other = BackedUpDisk.drawn(
        Repository.create(tmp_path / "other", repository_id="o", name="o"), "QqQqQq"
    )
    replace_job(backup.repository, "job-0", other)
    with pytest.raises(LayerDamaged, match="other root digest") as damaged:
        backup.repository.open_chain(backup.paths)
    assert damaged.value.path == backup.paths[2]
    with pytest.raises(LayerDamaged):
        backup.writer()


def test_base_exchanged_during_the_upload_fails_the_seal(
    backup: BackedUpDisk, tmp_path: Path
) -> None:
    other = BackedUpDisk.drawn(
        Repository.create(tmp_path / "other", repository_id="o", name="o"), "QqQqQq"
    )
    writer = backup.writer()
    replace_job(backup.repository, "job-0", other)
    with pytest.raises(LayerDamaged, match="other root digest"):
        writer.seal("change")
    writer.discard()


@pytest.mark.parametrize(
    ("base", "problem"),
    [
        (
            LayerBase("ctx-backup-pgtest1-1/job-2/disk-0.qcow2", "job-9", 0, "change/job-2"),
            "belongs",
        ),
        (
            LayerBase("ctx-backup-pgtest1-1/job-2/disk-0.qcow2", "job-2", 1, "change/job-2"),
            "belongs",
        ),
        (
            LayerBase("ctx-backup-pgtest1-1/job-2/disk-0.qcow2", "job-2", 0, "change/job-1"),
            "change id",
        ),
        (LayerBase("ctx-backup-pgtest1-1/job-7/disk-0.qcow2", "job-7", 0, "x"), "No such file"),
    ],
    ids=["other job", "other disk", "other change id", "no such layer"],
)
def test_base_that_is_not_what_was_said_is_refused(
    backup: BackedUpDisk, base: LayerBase, problem: str
) -> None:
    with pytest.raises(LayerDamaged, match=problem):
        backup.repository.new_layer(identity("job-3", backup.disk.capacity_bytes), base)
    assert not (backup.repository.path / "ctx-backup-pgtest1-1/job-3").exists()


def test_base_larger_than_the_disk_is_refused(backup: BackedUpDisk) -> None:
    smaller = identity("job-3", backup.disk.capacity_bytes - 512)
    with pytest.raises(LayerDamaged, match="is larger"):
        backup.repository.new_layer(smaller, backup.base)


def test_damaged_data_does_not_pass_the_decoder(backup: BackedUpDisk) -> None:
    with JournalReader(backup.repository.path / manifest_path(backup.paths[2])) as journal:
        offset = next(int(p.frame.offsets[0]) for p in journal.frames())
    path = backup.repository.path / backup.paths[2]
    data = bytearray(path.read_bytes())
    data[offset + 100] ^= 1
    path.write_bytes(data)
    with backup.repository.open_chain(backup.paths) as chain, pytest.raises(ClusterDamaged):
        for batch in chain.batches():
            list(ClusterDecoder().decode(batch))


def test_manifest_damaged_between_opening_and_reading_ends_the_stream(
    backup: BackedUpDisk,
) -> None:
    path = backup.repository.path / manifest_path(backup.paths[2])
    with backup.repository.open_chain(backup.paths) as chain:
        data = bytearray(path.read_bytes())
        with JournalReader(path) as journal:
            data[next(p.record_at for p in journal.frames()) + 60] ^= 1
        path.write_bytes(data)
        with pytest.raises(LayerDamaged) as damaged:
            list(chain.batches())
    assert damaged.value.path == manifest_path(backup.paths[2])


def test_batches_are_about_one_mebibyte_and_skip_empty_regions(repository: Repository) -> None:
    backup = BackedUpDisk(repository, GuestDisk(200 * REGION_BYTES))
    backup.backup({0: "a" * 40, 150 * 8192 - 10: "b" * 20}, frame_clusters=7)
    with repository.open_chain(backup.paths) as chain:
        batches = list(chain.batches())
        assert chain.payload_bytes == 60 * CLUSTER_BYTES
    assert [batch.region for batch in batches] == [0, 0, 0, 149, 150]
    assert [len(batch) for batch in batches] == [16, 16, 8, 10, 10]
    assert len(backup.restored()) == 60


def test_contiguous_clusters_are_read_in_one_call(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = BackedUpDisk.drawn(repository, "ABCDEFGHIJ" * 10)
    with repository.open_chain(backup.paths) as chain:
        real = os.pread
        reads = []

        def pread(fd: int, length: int, offset: int) -> bytes:
            reads.append(length)
            return real(fd, length, offset)

        monkeypatch.setattr(os, "pread", pread)
        (batch,) = chain.batches()
    assert len(batch) == 100
    assert reads[1:] == [chain.payload_bytes]  # the region's records, then its data


def test_chain_of_more_layers_than_open_files_is_read(repository: Repository) -> None:
    backup = BackedUpDisk.drawn(repository, "." * 80)
    for layer in range(75):
        backup.backup({layer: "AB"})
    opened_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with repository.open_chain(backup.paths) as chain:
        list(chain.batches())
        assert len(os.listdir("/proc/self/fd")) - opened_before <= 64  # noqa: PTH208
    assert len(os.listdir("/proc/self/fd")) == opened_before  # noqa: PTH208
    assert backup.restored() == backup.disk.non_zero()
