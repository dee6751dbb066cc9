"""Unfinished layers: suspended or left by a crash, cut where they are not whole, gone on with."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hub.repository import (
    DurableLayer,
    KnownJobs,
    LayerBase,
    LayerDamaged,
    LayerIdentity,
    LayerInUse,
    LayerState,
    LayerWriteFailed,
    LayerWriter,
    Repository,
    RepositoryFull,
    RepositoryUnusable,
    ResumedLayer,
)
from hub.repository import left_layer as reopening
from hub.repository.errors import translated
from hub.repository.file_calls import FileCalls, replaced
from sendense.clusters import CLUSTER_BYTES
from sendense.codec import EncodedClusters
from shared.errors import SendenseError
from tests.unit.hub.repository.disks import (
    BackedUpDisk,
    GuestDisk,
    assert_clean,
    assert_same_as_guest,
    encoded,
    identity,
)

PLAN = b"p" * 16
CHANGE = "change/job"
TEXT = "ABcD0eF.Ghij0000KlMNoPQrS0tU"


class Backup:
    """A disk in frames of three clusters, on its way into the layer of one job."""

    def __init__(self, repository: Repository, *, increment: bool = False) -> None:
        self.repository = repository
        self.disk = GuestDisk(len(TEXT) * CLUSTER_BYTES + 512)
        self.base: LayerBase | None = None
        if increment:
            below = BackedUpDisk(repository, self.disk)
            below.backup({0: "abC.EFGHi"})
            self.base = below.base
        self.disk.write({0: TEXT})
        self.identity: LayerIdentity = identity("job", self.disk.capacity_bytes)
        self.frames = list(
            encoded(self.disk, range(len(TEXT)), keep_zeros=increment, frame_clusters=3)
        )
        folder = repository.path / "ctx-backup-pgtest1-1/job"
        self.partial = folder / "disk-0.qcow2.partial"
        self.manifest = folder / "disk-0.manifest"
        self.layer = folder / "disk-0.qcow2"

    def resumed(self, plan_digest: bytes = PLAN, change_id: str = CHANGE) -> ResumedLayer:
        return self.repository.resume_layer(
            self.identity, self.base, plan_digest=plan_digest, change_id=change_id
        )

    def writer(self, plan_digest: bytes = PLAN) -> LayerWriter:
        writer = self.resumed(plan_digest).writer
        assert writer is not None
        return writer

    def append(self, writer: LayerWriter, until: int | None = None) -> None:
        """The frames from where the writer is."""
        for frame in self.frames[writer.durable.frames : until]:
            writer.append(frame)

    def suspended_after(self, frames: int) -> None:
        writer = self.writer()
        self.append(writer, frames)
        writer.suspend()

    def durable(self, frames: int) -> DurableLayer:
        done: list[EncodedClusters] = self.frames[:frames]
        return DurableLayer(
            frames,
            done[-1].last_cluster if done else -1,
            sum(map(len, done)),
            sum(each.payload_bytes for each in done),
        )

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.partial.parent.iterdir())}

    def sealed_files(self) -> dict[str, bytes]:
        """What an uninterrupted upload makes, the folder empty again."""
        writer = self.writer()
        self.append(writer)
        writer.seal(CHANGE)
        files = self.files()
        self.repository.remove_job(self.identity.context_id, "job")
        return files


@pytest.fixture(params=[False, True], ids=["full", "increment"])
def backup(repository: Repository, request: pytest.FixtureRequest) -> Backup:
    return Backup(repository, increment=request.param)


def test_layer_suspended_after_each_frame_is_byte_for_byte_that_of_one_upload(
    backup: Backup, tmp_path: Path
) -> None:
    expected = backup.sealed_files()
    for count in range(len(backup.frames) + 1):
        writer = backup.writer()
        assert writer.durable == backup.durable(max(0, count - 1))
        assert writer.last_cluster == writer.durable.last_cluster
        backup.append(writer, count)
        writer.suspend()
    writer = backup.writer()
    assert writer.durable == backup.durable(len(backup.frames))
    sealed = writer.seal(CHANGE)
    assert backup.files() == expected
    assert sealed.root_digest == backup.disk.root_digest()
    assert_clean(backup.layer)
    assert_same_as_guest(backup.layer, backup.disk, tmp_path)


Damage = Callable[[Backup], None]


def _append_to(name: str, data: bytes) -> Damage:
    def damage(backup: Backup) -> None:
        with Path(getattr(backup, name)).open("ab") as file:
            file.write(data)

    return damage


def _cut(name: str, length: int) -> Damage:
    def damage(backup: Backup) -> None:
        path = Path(getattr(backup, name))
        os.truncate(path, path.stat().st_size - length)

    return damage


def _flip_last_byte(backup: Backup) -> None:
    with backup.partial.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def _stale_header(backup: Backup) -> None:
    with backup.partial.open("r+b") as file:
        file.write(b"QFI\xfb" + b"\1" * 300)
        file.seek(0, os.SEEK_END)
        file.write(b"\2" * CLUSTER_BYTES)  # a table


@pytest.mark.parametrize(
    ("damage", "frames_lost"),
    [
        pytest.param(_append_to("partial", b"x" * 200_000), 0, id="data without a record"),
        pytest.param(_append_to("manifest", b"x" * 100), 0, id="garbage behind the journal"),
        pytest.param(_append_to("manifest", bytes(5000)), 0, id="zeros behind the journal"),
        pytest.param(_cut("manifest", 1), 1, id="a record cut off"),
        pytest.param(_cut("partial", 1), 1, id="data cut off"),
        pytest.param(_cut("partial", 150_000), 2, id="data of several frames cut off"),
        pytest.param(_flip_last_byte, 1, id="data torn"),
        pytest.param(_stale_header, 0, id="tables and header written"),
    ],
)
@pytest.mark.parametrize("at_start", [False, True], ids=["upload", "start-up"])
def test_layer_is_cut_behind_its_last_good_frame(
    backup: Backup, damage: Damage, frames_lost: int, at_start: bool, tmp_path: Path
) -> None:
    expected = backup.sealed_files()
    # This frame has data at the layer's end, those before it, too.
    count = 7
    assert backup.frames[count - 1].payload_bytes > 0
    backup.suspended_after(count)
    damage(backup)
    if frames_lost > 1:
        frames_lost = _frames_beyond(backup, backup.partial.stat().st_size, count)
        assert frames_lost > 1
    if at_start:
        found = backup.repository.recover_layer(backup.identity, backup.base, change_id=CHANGE)
        assert found.state is LayerState.REOPENED
        assert found.durable == backup.durable(count - frames_lost)
        assert found.journal_bytes_cut + found.layer_bytes_cut > 0
    resumed = backup.resumed()
    assert resumed.writer is not None
    assert resumed.writer.durable == backup.durable(count - frames_lost)
    assert (resumed.journal_bytes_cut + resumed.layer_bytes_cut > 0) is not at_start
    backup.append(resumed.writer)
    sealed = resumed.writer.seal(CHANGE)
    assert sealed.root_digest == backup.disk.root_digest()
    assert backup.files() == expected
    assert_same_as_guest(backup.layer, backup.disk, tmp_path)


def _frames_beyond(backup: Backup, layer_bytes: int, count: int) -> int:
    with reopening.JournalReader(backup.manifest) as journal:
        ends = [placed.frame.placement.end for placed in journal.frames()]
    assert len(ends) == count
    return sum(1 for end in ends if end > layer_bytes)


def test_tail_that_is_wrong_altogether_is_looked_at_further_back(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = Backup(repository)
    expected = backup.sealed_files()
    backup.suspended_after(7)
    monkeypatch.setattr(reopening, "_TAIL_BYTES", 1)  # one frame is the tail
    end = backup.partial.stat().st_size
    os.truncate(backup.partial, end - 150_000)
    lost = _frames_beyond(backup, end - 150_000, 7)
    assert lost > 1
    writer = backup.writer()
    assert writer.durable == backup.durable(7 - lost)
    backup.append(writer)
    writer.seal(CHANGE)
    assert backup.files() == expected


class _Stop(Exception):
    """The program ends here."""


class _EndsAt(FileCalls):
    """Ends the program at the nth change of a certain kind; the call is not made."""

    def __init__(self, call: str) -> None:
        self.call = call

    def rename(self, source: Path, target: Path) -> None:
        if self.call == "rename":
            raise _Stop
        super().rename(source, target)
        if self.call == "renamed":
            raise _Stop


@pytest.mark.parametrize("moment", ["rename", "renamed"])
@pytest.mark.parametrize("at_start", [False, True], ids=["upload", "start-up"])
def test_sealed_layer_that_the_hub_did_not_come_to_record_is_found(
    backup: Backup, moment: str, at_start: bool, tmp_path: Path
) -> None:
    expected = backup.sealed_files()
    writer = backup.writer()
    backup.append(writer)
    with pytest.raises(_Stop), replaced(_EndsAt(moment)):
        writer.seal(CHANGE)
    writer.suspend()  # as the end of the process does
    assert backup.layer.exists() is (moment == "renamed")
    if at_start:
        found = backup.repository.recover_layer(backup.identity, backup.base, change_id=CHANGE)
        assert found.state is LayerState.SEALED
    resumed = backup.resumed()
    assert resumed.writer is None
    assert resumed.sealed is not None
    assert resumed.totals is not None
    assert resumed.sealed.root_digest == backup.disk.root_digest()
    assert resumed.sealed.bytes_stored == sum(map(len, expected.values()))
    assert resumed.totals.payload_bytes == backup.durable(len(backup.frames)).payload_bytes
    assert backup.files() == expected
    assert_same_as_guest(backup.layer, backup.disk, tmp_path)


def test_layer_that_somebody_writes_is_neither_cut_nor_removed(
    backup: Backup, tmp_path: Path
) -> None:
    """As when two hubs are on a repository for a moment."""
    writer = backup.writer()
    backup.append(writer, 4)
    before = backup.files()
    other = Repository(backup.repository.path, "repo-1")
    for plan in (PLAN, b"q" * 16):
        with pytest.raises(LayerInUse, match="another hub"):
            other.resume_layer(backup.identity, backup.base, plan_digest=plan, change_id=CHANGE)
    with pytest.raises(LayerInUse):
        other.recover_layer(backup.identity, backup.base, change_id=CHANGE)
    assert backup.files() == before
    for frame in backup.frames[4:]:
        writer.append(frame)
    writer.seal(CHANGE)
    assert_same_as_guest(backup.layer, backup.disk, tmp_path)


def test_file_system_without_locks_is_as_good(
    backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("hub.repository.layer_files.fcntl.flock", no_locks)
    backup.suspended_after(4)
    writer = backup.writer()
    backup.append(writer)
    assert writer.seal(CHANGE).root_digest == backup.disk.root_digest()


def test_footer_cut_off_is_written_again(backup: Backup) -> None:
    expected = backup.sealed_files()
    writer = backup.writer()
    backup.append(writer)
    with pytest.raises(_Stop), replaced(_EndsAt("rename")):
        writer.seal(CHANGE)
    writer.suspend()
    os.truncate(backup.manifest, backup.manifest.stat().st_size - 7)
    writer = backup.writer()
    assert writer.durable == backup.durable(len(backup.frames))
    writer.seal(CHANGE)
    assert backup.files() == expected


@pytest.mark.parametrize("what", ["plan", "no plan", "base", "disk"])
def test_layer_of_another_upload_is_removed_and_begun_anew(backup: Backup, what: str) -> None:
    backup.suspended_after(4)
    plan = {"plan": b"q" * 16, "no plan": b""}.get(what, PLAN)
    if what == "base":
        sealed = backup.repository.new_layer(identity("other", CLUSTER_BYTES), None).seal("c")
        backup.base = LayerBase(sealed.path, "other", 0, "c")
    elif what == "disk":
        backup.identity = identity("job", backup.disk.capacity_bytes, disk_uuid="another")
    writer = backup.writer(plan)
    assert writer.durable == DurableLayer()
    writer.discard()


def test_layer_that_began_without_a_plan_is_not_gone_on_with(backup: Backup) -> None:
    writer = backup.writer(b"")
    backup.append(writer, 3)
    writer.suspend()
    assert backup.writer(b"").durable.frames == 0


@pytest.mark.parametrize("left", ["partial", "manifest", "both, without a header", "nothing"])
def test_crash_between_the_first_calls_begins_anew(backup: Backup, left: str) -> None:
    expected = backup.sealed_files()
    if left != "nothing":
        backup.partial.parent.mkdir(parents=True)
    if left in ("partial", "both, without a header"):
        backup.partial.write_bytes(b"x" * 70_000)
    if left in ("manifest", "both, without a header"):
        backup.manifest.write_bytes(b"SnMr\1\0")
    found = backup.repository.recover_layer(backup.identity, backup.base, change_id=CHANGE)
    assert (found.state, found.durable) == (LayerState.NONE, DurableLayer())
    writer = backup.writer()
    assert writer.durable.frames == 0
    backup.append(writer)
    writer.seal(CHANGE)
    assert backup.files() == expected


def test_sealed_layer_of_another_disk_stays(backup: Backup) -> None:
    writer = backup.writer()
    writer.seal(CHANGE)
    before = backup.files()
    backup.identity = identity("job", backup.disk.capacity_bytes, disk_uuid="another")
    with pytest.raises(LayerWriteFailed, match="another disk"):
        backup.resumed()
    with pytest.raises(LayerWriteFailed, match="another disk"):
        backup.repository.recover_layer(backup.identity, backup.base, change_id=CHANGE)
    assert backup.files() == before


def test_sealed_layer_of_another_state_of_the_disk_is_written_anew(backup: Backup) -> None:
    backup.writer().seal("another change")
    assert backup.writer().durable.frames == 0
    assert not backup.layer.exists()


@pytest.mark.parametrize("plan", [b"q" * 16, b""])
def test_sealed_layer_of_another_plan_is_written_anew(backup: Backup, plan: bytes) -> None:
    backup.writer().seal(CHANGE)
    assert backup.writer(plan).durable.frames == 0
    assert not backup.layer.exists()


def test_sealed_layer_of_a_completed_job_is_never_removed(backup: Backup) -> None:
    backup.writer().seal("another change")
    (backup.layer.parent / "job.json").write_text("{}")
    before = backup.files()
    with pytest.raises(LayerWriteFailed, match="a job that was completed"):
        backup.resumed()
    assert backup.files() == before


def test_recovery_creates_nothing(repository: Repository) -> None:
    backup = Backup(repository)
    found = repository.recover_layer(backup.identity, None, change_id=CHANGE)
    assert found.state is LayerState.NONE
    assert [path.name for path in repository.path.iterdir()] == ["sendense-repository.json"]


def test_layer_on_a_base_that_was_replaced_is_not_gone_on_with(repository: Repository) -> None:
    backup = Backup(repository, increment=True)
    backup.suspended_after(4)
    base = backup.base
    assert base is not None
    repository.remove_job("ctx-backup-pgtest1-1", "job-0")
    other = GuestDisk(backup.disk.capacity_bytes)
    other.write({0: "Z"})
    writer = repository.new_layer(identity("job-0", other.capacity_bytes), None)
    writer.append(next(encoded(other, [0], keep_zeros=False)))
    writer.seal(base.change_id)
    assert backup.writer().durable.frames == 0


def test_damaged_base_is_told_before_the_upload_goes_on(repository: Repository) -> None:
    backup = Backup(repository, increment=True)
    backup.suspended_after(4)
    repository.remove_job("ctx-backup-pgtest1-1", "job-0")
    with pytest.raises(LayerDamaged):
        backup.resumed()


def test_files_of_running_jobs_stay_at_the_sweep(repository: Repository) -> None:
    backup = Backup(repository)
    backup.suspended_after(4)
    before = backup.files()
    assert repository.remove_leftovers(KnownJobs(live={"job"})) == []
    assert backup.files() == before
    assert len(repository.remove_leftovers()) == 2


class TestSuspend:
    def test_what_was_appended_is_durable_and_the_descriptors_are_closed(
        self, repository: Repository
    ) -> None:
        open_files = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
        backup = Backup(repository)
        writer = backup.writer()
        backup.append(writer, 5)
        assert writer.durable == DurableLayer()
        writer.suspend()
        writer.suspend()
        assert writer.durable == backup.durable(5)
        assert set(os.listdir("/proc/self/fd")) == open_files  # noqa: PTH208
        with pytest.raises(LayerWriteFailed, match="suspended already"):
            writer.append(backup.frames[5])

    def test_discard_after_it_removes_the_files(self, repository: Repository) -> None:
        backup = Backup(repository)
        writer = backup.writer()
        writer.suspend()
        writer.discard()
        assert backup.files() == {}

    def test_after_a_sync_that_failed_nothing_stays_that_may_not_be_stored(
        self, repository: Repository
    ) -> None:
        class Broken(FileCalls):
            def fdatasync(self, fd: int) -> None:
                raise OSError(5, "Input/output error")

            def close(self, fd: int) -> None:
                super().close(fd)
                raise OSError(5, "Input/output error")

        backup = Backup(repository)
        writer = backup.writer()
        backup.append(writer, 3)
        writer.sync()
        backup.append(writer, 5)
        with replaced(Broken()):
            writer.suspend()
        assert writer.durable == backup.durable(3)
        assert backup.files() == {}
        assert backup.writer().durable == DurableLayer()

    def test_layer_stays_when_there_was_no_room_for_more(self, repository: Repository) -> None:
        class Full(FileCalls):
            def free_bytes(self, path: Path) -> int | None:
                return 0

        backup = Backup(repository)
        writer = backup.writer()
        backup.append(writer, 3)
        writer.sync()
        backup.append(writer, 5)
        with replaced(Full()):
            writer.suspend()
        assert backup.writer().durable == backup.durable(3)

    def test_sealed_layer_is_not_touched(self, repository: Repository) -> None:
        backup = Backup(repository)
        writer = backup.writer()
        writer.seal(CHANGE)
        writer.suspend()
        assert set(backup.files()) == {"disk-0.manifest", "disk-0.qcow2"}


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (28, RepositoryFull),  # ENOSPC
        (122, RepositoryFull),  # EDQUOT
        (27, RepositoryFull),  # EFBIG
        (30, RepositoryUnusable),  # EROFS
        (13, RepositoryUnusable),  # EACCES
        (5, LayerWriteFailed),  # EIO
        (116, LayerWriteFailed),  # ESTALE
    ],
)
def test_system_errors_say_what_is_wrong_with_the_repository(
    number: int, kind: type[SendenseError]
) -> None:
    error = translated(OSError(number, os.strerror(number)), "ctx/job/disk-0.qcow2")
    assert type(error) is kind
    assert "ctx/job/disk-0.qcow2" in str(error)
