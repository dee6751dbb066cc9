"""What a layer is made of, how it is written, how it ends."""

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest

from hub.repository import (
    RESERVE_BYTES,
    DurablePoint,
    LayerWriteFailed,
    Repository,
    RepositoryFull,
    RepositoryUnusable,
)
from hub.repository.file_calls import FileCalls, replaced
from hub.repository.journal import JournalReader
from hub.repository.paths import manifest_path
from sendense.clusters import CLUSTER_BYTES, REGION_BYTES
from sendense.codec import EncodedClusters, FrameInvalid
from tests.unit.hub.repository.disks import (
    BackedUpDisk,
    GuestDisk,
    assert_clean,
    assert_same_as_guest,
    encoded,
    identity,
    qemu_img,
    qemu_map,
)
from tests.unit.hub.repository.recorded_calls import RecordedCalls


def files_of(repository: Repository) -> list[str]:
    return sorted(str(p.relative_to(repository.path)) for p in repository.path.rglob("disk-*"))


def test_full_layer_is_plain_qcow2_with_zstd(repository: Repository, tmp_path: Path) -> None:
    backup = BackedUpDisk.drawn(repository, "ABxC..0y", beyond=512)
    image = repository.path / backup.paths[0]
    info = qemu_img("info", image)
    assert "compression type: zstd" in info
    assert "refcount bits: 16" in info
    assert f"({8 * CLUSTER_BYTES + 512} bytes)" in info
    assert "backing file" not in info
    assert_clean(image)
    assert_same_as_guest(image, backup.disk, tmp_path)


def test_full_layer_leaves_zero_clusters_out(repository: Repository) -> None:
    backup = BackedUpDisk(repository, GuestDisk(REGION_BYTES * 3))
    written = backup.disk.write({0: "A0", 8192: "000"})
    writer = backup.writer()
    for batch in encoded(backup.disk, written, keep_zeros=True):
        writer.append(batch)
    sealed = writer.seal("change")
    assert (sealed.cluster_count, sealed.zero_cluster_count) == (1, 4)
    extents = qemu_map(repository.path / sealed.path)
    assert [(e["start"], e["length"]) for e in extents if e["data"]] == [(0, CLUSTER_BYTES)]
    # Header, one data cluster, one L2 table, L1, refcount block and table.
    assert os.path.getsize(repository.path / sealed.path) == 6 * CLUSTER_BYTES  # noqa: PTH202


def test_increment_names_its_base_relative_to_itself(repository: Repository) -> None:
    backup = BackedUpDisk.drawn(repository, "AB")
    backup.backup({1: "C"})
    info = qemu_img("info", repository.path / backup.paths[0])
    assert "backing file: ../job-0/disk-0.qcow2" in info
    assert "backing file format: qcow2" in info


def test_increment_hides_the_base_when_clusters_became_zero(repository: Repository) -> None:
    backup = BackedUpDisk.drawn(repository, "ABcD")
    backup.backup({0: "0.0"})
    extents = qemu_map(repository.path / backup.paths[0])
    assert [(e["start"] // CLUSTER_BYTES, e["zero"], e["depth"]) for e in extents] == [
        (0, True, 0),
        (1, False, 1),
        (2, True, 0),
        (3, False, 1),
    ]
    assert set(backup.restored()) == {1, 3}


def test_chain_opens_when_the_repository_was_moved(repository: Repository, tmp_path: Path) -> None:
    backup = BackedUpDisk.drawn(repository, "AbCd")
    backup.backup({1: "XY"})
    backup.backup({3: "0"})
    moved = repository.path.rename(tmp_path / "elsewhere")
    assert_same_as_guest(moved / backup.paths[0], backup.disk, tmp_path)
    backup.repository = Repository.open(moved, repository_id="repo-1")
    assert backup.restored() == backup.disk.non_zero()


@pytest.mark.parametrize("increment", [False, True], ids=["full", "increment"])
def test_layer_without_frames_is_sound(
    repository: Repository, tmp_path: Path, increment: bool
) -> None:
    backup = BackedUpDisk(repository, GuestDisk(5 * CLUSTER_BYTES + 1024))
    if increment:
        backup.backup({0: "AB"})
    sealed = backup.backup({})
    assert (sealed.cluster_count, sealed.zero_cluster_count) == (0, 0)
    assert_clean(repository.path / sealed.path)
    assert_same_as_guest(repository.path / sealed.path, backup.disk, tmp_path)
    assert backup.restored() == backup.disk.non_zero()


def test_increment_of_a_grown_disk_reads_zeros_behind_the_base(
    repository: Repository, tmp_path: Path
) -> None:
    backup = BackedUpDisk.drawn(repository, "ABCx", beyond=1536)
    backup.disk.write({4: "Q"})
    backup.disk.capacity_bytes += REGION_BYTES + 512
    backup.backup({4: "R..S", 8191: "Tu"})
    assert_same_as_guest(repository.path / backup.paths[0], backup.disk, tmp_path)
    assert backup.restored() == backup.disk.non_zero()
    assert backup.layers[-1].root_digest == backup.disk.root_digest()


def test_stored_bytes_are_those_of_layer_and_manifest(repository: Repository) -> None:
    backup = BackedUpDisk.drawn(repository, "AbC0")
    sizes = [(repository.path / name).stat().st_size for name in files_of(repository)]
    assert len(sizes) == 2
    assert backup.layers[0].bytes_stored == sum(sizes)


def test_gap_before_raw_clusters_is_filled_when_frames_are_mixed(repository: Repository) -> None:
    drawing = "".join("ABCDEF"[n % 6] + "xyz"[n % 3] for n in range(60))
    backup = BackedUpDisk(repository, GuestDisk(len(drawing) * CLUSTER_BYTES))
    backup.disk.write({0: drawing})
    writer = backup.writer()
    payload_bytes = 0
    for batch in encoded(backup.disk, range(len(drawing)), keep_zeros=False, frame_clusters=30):
        payload_bytes += batch.payload_bytes
        writer.append(batch)
    sealed = writer.seal("change")
    with JournalReader(repository.path / manifest_path(sealed.path)) as journal:
        ends = [
            int((placed.frame.offsets + placed.frame.sizes).max()) for placed in journal.frames()
        ]
    assert len(ends) == 4
    assert max(ends) - CLUSTER_BYTES <= payload_bytes * 1.03


class TestRefusals:
    def test_frame_out_of_order_is_refused_and_the_writer_goes_on(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        backup = BackedUpDisk(repository, GuestDisk(4 * CLUSTER_BYTES))
        backup.disk.write({0: "ABCD"})
        first, second = encoded(backup.disk, range(4), keep_zeros=False, frame_clusters=2)
        writer = backup.writer()
        writer.append(first)
        with pytest.raises(FrameInvalid, match="out of order"):
            writer.append(first)
        writer.append(second)
        sealed = writer.seal("change")
        assert_same_as_guest(repository.path / sealed.path, backup.disk, tmp_path)

    def test_cluster_beyond_the_capacity_is_refused(self, repository: Repository) -> None:
        larger = GuestDisk(5 * CLUSTER_BYTES)
        larger.write({4: "A"})
        writer = repository.new_layer(identity("job", 4 * CLUSTER_BYTES), None)
        (batch,) = encoded(larger, [4], keep_zeros=False)
        with pytest.raises(FrameInvalid, match="beyond"):
            writer.append(batch)
        assert writer.last_cluster == -1

    def test_more_clusters_in_64_kib_than_a_refcount_counts_fail_the_seal(
        self, repository: Repository
    ) -> None:
        writer = repository.new_layer(identity("job", 9 * REGION_BYTES), None)
        for region in range(9):
            numbers = np.arange(8192, dtype=np.uint32) + np.uint32(region * 8192)
            ones = np.ones(8192, np.uint32)
            writer.append(EncodedClusters(numbers, ones, bytes(16 * 8192), bytes(8192), b""))
        with pytest.raises(LayerWriteFailed, match="share 64 KiB"):
            writer.seal("change")
        writer.discard()
        assert files_of(repository) == []

    def test_second_writer_of_a_layer_is_refused(self, repository: Repository) -> None:
        writer = repository.new_layer(identity("job", CLUSTER_BYTES), None)
        with pytest.raises(LayerWriteFailed, match="exists"):
            repository.new_layer(identity("job", CLUSTER_BYTES), None)
        assert len(files_of(repository)) == 2  # the first one's are untouched
        writer.seal("change")

    def test_sealed_layer_is_never_written_again(self, repository: Repository) -> None:
        backup = BackedUpDisk.drawn(repository, "AB")
        before = {name: (repository.path / name).read_bytes() for name in files_of(repository)}
        with pytest.raises(LayerWriteFailed, match="sealed layer of that name"):
            repository.new_layer(identity("job-0", 2 * CLUSTER_BYTES), None)
        assert before == {n: (repository.path / n).read_bytes() for n in files_of(repository)}
        assert backup.restored() == backup.disk.non_zero()

    @pytest.mark.parametrize("call", ["append", "sync", "seal"])
    @pytest.mark.parametrize("end", ["seal", "discard"])
    def test_ended_writer_refuses_every_call(
        self, repository: Repository, end: str, call: str
    ) -> None:
        disk = GuestDisk(CLUSTER_BYTES)
        disk.write({0: "A"})
        writer = repository.new_layer(identity("job", CLUSTER_BYTES), None)
        calls: dict[str, Any] = {
            "append": lambda: writer.append(next(encoded(disk, [0], keep_zeros=False))),
            "sync": writer.sync,
            "seal": lambda: writer.seal("change"),
            "discard": writer.discard,
        }
        calls[end]()
        with pytest.raises(LayerWriteFailed, match="already"):
            calls[call]()


class TestDiscard:
    def test_discard_removes_the_files_and_may_be_repeated(self, repository: Repository) -> None:
        writer = repository.new_layer(identity("job", CLUSTER_BYTES), None)
        assert files_of(repository) == [
            "ctx-backup-pgtest1-1/job/disk-0.manifest",
            "ctx-backup-pgtest1-1/job/disk-0.qcow2.partial",
        ]
        writer.discard()
        writer.discard()
        assert files_of(repository) == []

    def test_discard_leaves_a_sealed_layer(self, repository: Repository) -> None:
        writer = repository.new_layer(identity("job", CLUSTER_BYTES), None)
        writer.seal("change")
        writer.discard()
        assert len(files_of(repository)) == 2

    def test_discard_works_when_the_folder_is_gone(self, repository: Repository) -> None:
        writer = repository.new_layer(identity("job", CLUSTER_BYTES), None)
        repository.remove_job("ctx-backup-pgtest1-1", "job")
        writer.discard()

    def test_discard_closes_the_descriptors(self, repository: Repository) -> None:
        before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
        repository.new_layer(identity("job", CLUSTER_BYTES), None).discard()
        repository.new_layer(identity("job", CLUSTER_BYTES), None).seal("change")
        assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    def test_discard_during_writes_of_another_thread_ends_them_clearly(
        self, repository: Repository
    ) -> None:
        disk = GuestDisk(2000 * CLUSTER_BYTES)
        disk.write({0: "A" * 2000})
        batches = list(encoded(disk, range(2000), keep_zeros=False, frame_clusters=1))
        writer = repository.new_layer(identity("job", disk.capacity_bytes), None)
        raised: list[BaseException] = []
        started = Barrier(2)

        def upload() -> None:
            started.wait(timeout=10)
            try:
                for batch in batches:
                    writer.append(batch)
                    writer.sync()
            except LayerWriteFailed as error:
                raised.append(error)

        thread = Thread(target=upload)
        thread.start()
        started.wait(timeout=10)
        writer.discard()
        thread.join(timeout=30)
        assert not thread.is_alive()
        assert [type(error) for error in raised] == [LayerWriteFailed]
        assert files_of(repository) == []


class TestSync:
    def test_sync_tells_what_is_durable(self, repository: Repository) -> None:
        disk = GuestDisk(9 * CLUSTER_BYTES)
        disk.write({0: "ABCDEFGHI"})
        batches = list(encoded(disk, range(9), keep_zeros=False))
        writer = repository.new_layer(identity("job", disk.capacity_bytes), None)
        assert writer.sync() == DurablePoint(0, -1)
        writer.append(batches[0])
        writer.append(batches[1])
        assert writer.sync() == DurablePoint(2, 5)
        manifest = repository.path / "ctx-backup-pgtest1-1/job/disk-0.manifest"
        with JournalReader(manifest) as journal:
            assert [p.frame.last_cluster for p in journal.frames()] == [2, 5]
        assert writer.sync() == DurablePoint(2, 5)

    def test_data_is_synced_before_its_journal_record_is_written(
        self, repository: Repository
    ) -> None:
        disk = GuestDisk(9 * CLUSTER_BYTES)
        disk.write({0: "ABCdefGHI"})
        writer = repository.new_layer(identity("job", disk.capacity_bytes), None)
        with replaced(calls := RecordedCalls()):
            for batch in encoded(disk, range(9), keep_zeros=False):
                writer.append(batch)
        assert set(_steps(calls)) == {("pwritev", "layer")}
        with replaced(calls := RecordedCalls()):
            writer.sync()
        assert _steps(calls) == [
            ("fdatasync", "layer"),
            ("pwritev", "manifest"),
            ("fdatasync", "manifest"),
        ]

    def test_seal_writes_the_header_last_and_renames_after_all_syncs(
        self, repository: Repository
    ) -> None:
        disk = GuestDisk(CLUSTER_BYTES)
        disk.write({0: "A"})
        writer = repository.new_layer(identity("job", disk.capacity_bytes), None)
        for batch in encoded(disk, [0], keep_zeros=False):
            writer.append(batch)
        writer.sync()
        with replaced(calls := RecordedCalls()):
            writer.seal("change")
        tables = ["pwritev"] * 4  # L2, L1, refcount block, refcount table
        assert _steps(calls) == [
            *[(call, "layer") for call in [*tables, "fsync", "pwritev header", "fsync"]],
            ("pwritev", "manifest"),
            ("fdatasync", "manifest"),
            ("rename", "layer"),
            ("fsync", "job"),
        ]

    def test_append_and_sync_in_two_threads_lose_nothing(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        backup = BackedUpDisk(repository, GuestDisk(300 * CLUSTER_BYTES))
        backup.disk.write({0: "ABcD0" * 60})
        batches = list(encoded(backup.disk, range(300), keep_zeros=False, frame_clusters=2))
        writer = backup.writer()
        points: list[DurablePoint] = []
        appended: list[bool] = []

        def sync_until_all_is_appended() -> None:
            while not appended:
                points.append(writer.sync())

        syncer = Thread(target=sync_until_all_is_appended)
        syncer.start()
        try:
            for batch in batches:
                writer.append(batch)
        finally:
            appended.append(True)
            syncer.join(timeout=60)
        assert points == sorted(points, key=lambda point: point.frames)
        sealed = writer.seal("change")
        assert sealed.cluster_count == 240
        assert_clean(repository.path / sealed.path)
        assert_same_as_guest(repository.path / sealed.path, backup.disk, tmp_path)

    def test_failed_sync_is_never_called_durable_later(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = GuestDisk(CLUSTER_BYTES)
        disk.write({0: "A"})
        writer = repository.new_layer(identity("job", disk.capacity_bytes), None)
        writer.append(next(encoded(disk, [0], keep_zeros=False)))
        real = os.fdatasync
        failed = []

        def lost(fd: int) -> None:
            failed.append(fd)
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fdatasync", lost)
        with pytest.raises(LayerWriteFailed, match="Input/output error"):
            writer.sync()
        monkeypatch.setattr(os, "fdatasync", real)
        for _ in range(2):
            with pytest.raises(LayerWriteFailed, match="Input/output error"):
                writer.sync()
        with pytest.raises(LayerWriteFailed, match="Input/output error"):
            writer.seal("change")
        assert len(failed) == 1
        writer.discard()
        assert files_of(repository) == []


class TestNoRoom:
    @pytest.fixture
    def short_files(self) -> Iterator[None]:
        """No file of this process may grow beyond 300,000 bytes."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    @pytest.mark.usefixtures("short_files")
    def test_file_that_may_not_grow_is_a_full_repository(self, repository: Repository) -> None:
        error = _fill(repository)
        assert error.path == "ctx-backup-pgtest1-1/job/disk-0.qcow2"
        assert files_of(repository) == []

    def test_full_disk_fails_the_layer_and_gives_its_space_back(self, tmp_path: Path) -> None:
        with _mounted(tmp_path / "small", "size=1m") as folder:
            repository = Repository.create(folder / "r", repository_id="r", name="r")
            free = repository.space().free_bytes
            _fill(repository)
            repository.remove_job("ctx-backup-pgtest1-1", "job")
            assert repository.space().free_bytes == free

    def test_disk_that_fills_up_at_the_seal_leaves_no_sealed_layer(self, tmp_path: Path) -> None:
        # As if others had used up the reserve since the last look.
        with _mounted(tmp_path / "small", "size=256k") as folder, replaced(_Room(None)):
            repository = Repository.create(folder / "r", repository_id="r", name="r")
            writer = repository.new_layer(identity("job", CLUSTER_BYTES * 3), None)
            disk = GuestDisk(CLUSTER_BYTES * 3)
            disk.write({0: "aA"})
            for batch in encoded(disk, range(3), keep_zeros=False):
                writer.append(batch)
            with pytest.raises(RepositoryFull):
                writer.seal("change")
            assert not list(folder.rglob("*.qcow2"))
            with pytest.raises(RepositoryFull):
                writer.sync()
            writer.discard()
            assert files_of(repository) == []

    def test_read_only_file_system_is_an_unusable_repository(self, tmp_path: Path) -> None:
        with _mounted(tmp_path / "small", "size=100m") as folder:
            repository = Repository.create(folder / "r", repository_id="r", name="r")
            repository.check_writable()
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True, timeout=30)
            with pytest.raises(RepositoryUnusable, match="Read-only"):
                repository.check_writable()
            with pytest.raises(RepositoryUnusable, match="Read-only"):
                repository.new_layer(identity("job", CLUSTER_BYTES), None)


class TestReserve:
    def test_last_of_the_room_is_refused_before_a_backup_and_at_each_sync(
        self, repository: Repository
    ) -> None:
        disk = GuestDisk(2 * CLUSTER_BYTES)
        disk.write({0: "AB"})
        batches = list(encoded(disk, range(2), keep_zeros=False, frame_clusters=1))
        writer = repository.new_layer(identity("job", disk.capacity_bytes), None)
        with replaced(_Room(RESERVE_BYTES)):
            repository.check_writable()
            writer.append(batches[0])
            writer.sync()
        with replaced(_Room(RESERVE_BYTES - 1)):
            with pytest.raises(RepositoryFull):
                repository.check_writable()
            writer.append(batches[1])
            with pytest.raises(RepositoryFull):
                writer.sync()
        with pytest.raises(RepositoryFull):
            writer.seal("change")
        assert writer.durable.frames == 1
        writer.discard()
        assert files_of(repository) == []

    def test_file_system_that_does_not_tell_its_room_is_used(self, repository: Repository) -> None:
        with replaced(_Room(None)):
            repository.check_writable()


class _Room(FileCalls):
    """So many bytes are free."""

    def __init__(self, free: int | None) -> None:
        self._free = free

    def free_bytes(self, path: Path | str) -> int | None:
        return self._free


class _mounted:
    """A small tmpfs, where the tests may mount one."""

    def __init__(self, folder: Path, options: str) -> None:
        self._folder, self._options = folder, options

    def __enter__(self) -> Path:
        self._folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", self._options, "tmpfs", self._folder]
        done = subprocess.run(mount, capture_output=True, timeout=30, check=False)
        if done.returncode:
            pytest.skip("may not mount a tmpfs here")
        return self._folder

    def __exit__(self, *error: object) -> None:
        subprocess.run(["umount", self._folder], check=True, timeout=30)


def _fill(repository: Repository) -> RepositoryFull:
    """Append until there is no room. Returns the error; the writer is discarded."""
    disk = GuestDisk(40 * CLUSTER_BYTES)
    disk.write({0: "a" * 40})
    writer = repository.new_layer(identity("job", disk.capacity_bytes), None)
    with pytest.raises(RepositoryFull) as full:
        for batch in encoded(disk, range(40), keep_zeros=False):
            writer.append(batch)
    with pytest.raises(RepositoryFull):
        writer.seal("change")
    writer.discard()
    return full.value


def _steps(calls: RecordedCalls) -> list[tuple[str, str]]:
    """What was recorded: (call, which file); a write of the layer's header has its own name."""
    header = ("pwritev", "layer", 0)
    return [
        ("pwritev header" if (one.name, one.kind, one.offset) == header else one.name, one.kind)
        for one in calls.calls
    ]
