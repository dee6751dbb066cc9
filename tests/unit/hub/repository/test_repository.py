"""The repository's folder: made, adopted, refused; jobs removed; leftovers swept."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import structlog

from hub.repository import KnownJobs, LayerDamaged, LayerWriteFailed, Repository, RepositoryUnusable
from hub.repository.file_calls import FileCalls, replaced
from sendense.clusters import CLUSTER_BYTES
from shared.errors import InvalidArgument, SendenseError
from tests.unit.hub.repository.disks import BackedUpDisk, GuestDisk, identity


def create(path: Path, repository_id: str = "repo-1") -> Repository:
    return Repository.create(path, repository_id=repository_id, name="default")


class TestCreate:
    def test_new_folder_gets_its_mark(self, tmp_path: Path) -> None:
        create(tmp_path / "new")
        facts = json.loads((tmp_path / "new/sendense-repository.json").read_text())
        assert facts == {"format": 1, "repository_id": "repo-1", "name": "default"}
        Repository.open(tmp_path / "new", repository_id="repo-1").check_writable()

    def test_empty_file_system_is_adopted(self, tmp_path: Path) -> None:
        (tmp_path / "lost+found").mkdir()
        (tmp_path / "sendense-repository.jsonx1y2.partial").touch()
        create(tmp_path)

    def test_repository_of_the_same_id_is_adopted_as_it_is(self, repository: Repository) -> None:
        backup = BackedUpDisk.drawn(repository, "AB")
        backup.repository = create(repository.path)
        assert backup.restored() == backup.disk.non_zero()

    @pytest.mark.parametrize("path", ["relative/folder", "."])
    def test_relative_path_is_refused(self, path: str) -> None:
        with pytest.raises(RepositoryUnusable, match="absolute"):
            create(Path(path))

    def test_folder_within_a_repository_is_refused(self, repository: Repository) -> None:
        (repository.path / "a").mkdir()
        for nested in ("b", "a/b"):
            with pytest.raises(RepositoryUnusable, match="lies within"):
                create(repository.path / nested)
        assert [each.name for each in (repository.path / "a").iterdir()] == []

    def test_mark_that_another_program_was_quicker_to_make_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.link

        def link(source: str, target: Path) -> None:
            monkeypatch.setattr(os, "link", real)
            create(tmp_path, "repo-2")
            real(source, target)

        monkeypatch.setattr(os, "link", link)
        with pytest.raises(RepositoryUnusable, match="belongs to repository 'repo-2'"):
            create(tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == ["sendense-repository.json"]

    def test_file_system_without_links_gets_its_mark(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def link(source: str, target: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
        create(tmp_path).check_writable()
        assert Repository.id_in(tmp_path) == "repo-1"

    def test_other_peoples_folders_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        with pytest.raises(RepositoryUnusable, match="'photos'"):
            create(tmp_path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]

    def test_repository_of_another_id_is_refused(self, repository: Repository) -> None:
        for attempt in (create, lambda p, i: Repository.open(p, repository_id=i)):
            with pytest.raises(RepositoryUnusable, match="belongs to repository 'repo-1'"):
                attempt(repository.path, "repo-2")

    def test_folder_without_a_parent_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RepositoryUnusable, match="parent"):
            create(tmp_path / "a/b")

    def test_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(RepositoryUnusable, match="not a folder"):
            create(tmp_path / "file")

    @pytest.mark.parametrize("content", ["", "[]", '{"format": 2}', "\x00"])
    def test_damaged_mark_is_refused(self, repository: Repository, content: str) -> None:
        (repository.path / "sendense-repository.json").write_text(content)
        with pytest.raises(RepositoryUnusable):
            Repository.open(repository.path, repository_id="repo-1")


def test_probe_of_a_file_system_without_nameless_files_leaves_nothing(
    repository: Repository,
) -> None:
    class Old(FileCalls):
        def open(self, path: Path | str, flags: int, mode: int = 0o640) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "Operation not supported")
            return super().open(path, flags, mode)

    with replaced(Old()):
        repository.check_writable()
    assert [entry.name for entry in repository.path.iterdir()] == ["sendense-repository.json"]


def test_space_is_that_of_the_file_system(repository: Repository) -> None:
    space = repository.space()
    assert 0 < space.free_bytes < space.total_bytes


def test_nothing_is_written_when_the_mount_is_gone(repository: Repository) -> None:
    (repository.path / "sendense-repository.json").unlink()
    attempts = [
        lambda: repository.new_layer(identity("job", CLUSTER_BYTES), None),
        lambda: repository.write_job_facts("ctx", "job", {}),
        repository.check_writable,
    ]
    for attempt in attempts:
        with pytest.raises(RepositoryUnusable, match="is it mounted"):
            attempt()
    assert list(repository.path.iterdir()) == []
    repository.path.rmdir()
    with pytest.raises(RepositoryUnusable, match="is no folder"):
        repository.check_writable()
    with pytest.raises(RepositoryUnusable):
        repository.space()


BAD_NAMES = ["", ".", "..", "a/b", "/etc", "a\0b", "x" * 256, "\ud800"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_id_that_is_no_folder_name_is_refused(repository: Repository, name: str) -> None:
    attempts = [
        lambda: repository.new_layer(identity(name, CLUSTER_BYTES), None),
        lambda: repository.new_layer(identity("job", CLUSTER_BYTES, context_id=name), None),
        lambda: repository.write_job_facts(name, "job", {}),
        lambda: repository.remove_job("ctx", name),
        lambda: repository.remove_job(name, "job"),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidArgument):
            attempt()
    assert [entry.name for entry in repository.path.iterdir()] == ["sendense-repository.json"]


@pytest.mark.parametrize("name", ["a b", "ä€", "-rf", "vm:1", "...", "%2e%2e", "a\nb"])
def test_odd_id_is_a_folder_like_any(repository: Repository, tmp_path: Path, name: str) -> None:
    backup = BackedUpDisk(repository, GuestDisk(CLUSTER_BYTES))
    backup.backup({0: "A"})
    sealed = repository.new_layer(identity(name, CLUSTER_BYTES), backup.base).seal("change")
    with repository.open_chain([sealed.path, *backup.paths]) as chain:
        assert chain.cluster_count == 1
    repository.remove_job("ctx-backup-pgtest1-1", name)
    assert backup.restored() == backup.disk.non_zero()


@pytest.mark.parametrize("capacity_bytes", [0, -512, 1, 511, 65537, (1 << 48) + 512])
def test_capacity_that_qcow2_cannot_have_is_refused(
    repository: Repository, capacity_bytes: int
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        repository.new_layer(identity("job", capacity_bytes), None)
    assert refused.value.field == "capacity_bytes"


def test_job_facts_are_replaced_whole(repository: Repository) -> None:
    (repository.path / "ctx/job").mkdir(parents=True)
    assert repository.job_facts("ctx", "job") is None
    repository.write_job_facts("ctx", "job", {"vm_name": "pgtest1", "disks": [1, 2]})
    repository.write_job_facts("ctx", "job", {"vm_name": "Ämne"})
    folder = repository.path / "ctx/job"
    # As a crash before the rename leaves it.
    (folder / "job.json012345678901.partial").touch()
    repository.write_job_facts("ctx", "job", {"vm_name": "Ämne"})
    assert [entry.name for entry in folder.iterdir()] == ["job.json"]
    assert json.loads((folder / "job.json").read_text()) == {"vm_name": "Ämne"}
    assert repository.job_facts("ctx", "job") == {"vm_name": "Ämne"}


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 100_000])
def test_job_facts_that_cannot_be_understood_are_empty(
    repository: Repository, content: str
) -> None:
    (repository.path / "ctx/job").mkdir(parents=True)
    (repository.path / "ctx/job/job.json").write_text(content)
    assert repository.job_facts("ctx", "job") == {}


def test_job_facts_make_no_folder(repository: Repository) -> None:
    with pytest.raises(LayerWriteFailed, match="No such file"):
        repository.write_job_facts("ctx", "job", {})
    assert [entry.name for entry in repository.path.iterdir()] == ["sendense-repository.json"]


class TestRemoveJob:
    def test_last_job_takes_the_context_with_it(self, repository: Repository) -> None:
        BackedUpDisk.drawn(repository, "A")
        repository.write_job_facts("ctx-backup-pgtest1-1", "job-0", {})
        (repository.path / "ctx-backup-pgtest1-1/job-1").mkdir()
        repository.write_job_facts("ctx-backup-pgtest1-1", "job-1", {})
        repository.remove_job("ctx-backup-pgtest1-1", "job-0")
        assert [p.name for p in repository.path.glob("ctx*/*")] == ["job-1"]
        repository.remove_job("ctx-backup-pgtest1-1", "job-1")
        assert [p.name for p in repository.path.iterdir()] == ["sendense-repository.json"]

    def test_job_that_is_not_there_is_fine(self, repository: Repository) -> None:
        repository.remove_job("ctx", "job")
        repository.remove_job("ctx", "job")

    def test_link_in_the_place_of_a_job_is_not_followed(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/file").touch()
        (repository.path / "ctx").mkdir()
        (repository.path / "ctx/job").symlink_to(tmp_path / "precious")
        with pytest.raises(RepositoryUnusable, match="symbolic link"):
            repository.remove_job("ctx", "job")
        assert (tmp_path / "precious/file").exists()

    def test_jobs_begin_while_others_of_the_context_are_removed(
        self, repository: Repository
    ) -> None:
        failures: list[SendenseError] = []

        def begin_and_remove(worker: int) -> None:
            try:
                for turn in range(40):
                    job = f"job-{worker}-{turn}"
                    repository.new_layer(identity(job, CLUSTER_BYTES), None).discard()
                    repository.remove_job("ctx-backup-pgtest1-1", job)
            except SendenseError as error:
                failures.append(error)

        workers = [Thread(target=begin_and_remove, args=(n,)) for n in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=60)
        assert failures == []


class TestRemoveLeftovers:
    def test_leftovers_go_and_sealed_layers_stay(self, repository: Repository) -> None:
        backup = BackedUpDisk.drawn(repository, "AB")
        backup.writer("job-1")
        second = identity("job-0", CLUSTER_BYTES, disk_index=1)
        repository.new_layer(second, None)
        # As a crash between the end of an upload and its first record leaves it.
        (repository.path / "ctx-backup-pgtest1-1/job-2").mkdir()
        (repository.path / "ctx-backup-pgtest1-1/job-2/disk-0.manifest").touch()
        (repository.path / "ctx-backup-pgtest1-1/job-2/job.jsonab12.partial").touch()
        (repository.path / "sendense-repository.jsonab12.partial").touch()
        assert repository.remove_leftovers() == [
            "sendense-repository.jsonab12.partial",
            "ctx-backup-pgtest1-1/job-0/disk-1.manifest",
            "ctx-backup-pgtest1-1/job-0/disk-1.qcow2.partial",
            "ctx-backup-pgtest1-1/job-1/disk-0.manifest",
            "ctx-backup-pgtest1-1/job-1/disk-0.qcow2.partial",
            "ctx-backup-pgtest1-1/job-2/disk-0.manifest",
            "ctx-backup-pgtest1-1/job-2/job.jsonab12.partial",
        ]
        assert repository.remove_leftovers() == []
        assert [p.name for p in repository.path.glob("ctx*/*")] == ["job-0"]
        assert backup.restored() == backup.disk.non_zero()

    def test_manifest_of_a_sealed_layer_stays_when_the_layer_is_gone(
        self, repository: Repository
    ) -> None:
        BackedUpDisk.drawn(repository, "AB")
        folder = repository.path / "ctx-backup-pgtest1-1/job-0"
        (folder / "disk-0.qcow2").unlink()
        assert repository.remove_leftovers() == []
        assert (folder / "disk-0.manifest").exists()
        # Sealing had not come to the rename: this one never was a restore point's.
        (folder / "disk-0.qcow2.partial").touch()
        assert len(repository.remove_leftovers()) == 2

    def test_nothing_of_a_completed_job_is_touched(self, repository: Repository) -> None:
        folder = repository.path / "ctx/job-1"
        folder.mkdir(parents=True)
        for name in ("disk-0.manifest", "disk-1.qcow2.partial", "job.jsonab12.partial"):
            (folder / name).touch()
        with structlog.testing.capture_logs() as logs:
            assert repository.remove_leftovers(KnownJobs(completed={"job-1"})) == []
        assert [(one["event"], one["layer"]) for one in logs] == [
            ("layer_missing", "ctx/job-1/disk-0.qcow2")
        ]
        assert len(list(folder.iterdir())) == 3

    def test_folder_with_job_facts_is_left_whole_whatever_the_catalog_says(
        self, repository: Repository
    ) -> None:
        for job in ("failed", "unknown", "unfinished"):
            folder = repository.path / "ctx" / job
            folder.mkdir(parents=True)
            for name in ("disk-0.qcow2", "disk-1.qcow2.partial", "job.json"):
                (folder / name).touch()
        (repository.path / "ctx/unfinished/job.json").unlink()
        before = set(repository.path.rglob("*"))
        known = KnownJobs(unsuccessful={"failed", "unfinished"})
        with structlog.testing.capture_logs() as logs:
            assert repository.remove_leftovers(known) == ["ctx/unfinished"]
        gone = before - set(repository.path.rglob("*"))
        assert {path.relative_to(repository.path).parts[1] for path in gone} == {"unfinished"}
        (line,) = logs
        assert (line["event"], line["log_level"]) == ("job_files_kept", "error")
        assert line["folder"] == str(repository.path / "ctx/failed")

    @pytest.mark.parametrize("looks", [1, 2, 3])
    def test_nothing_that_appears_after_the_stop_is_removed(
        self, repository: Repository, looks: int
    ) -> None:
        left = repository.path / "ctx/left"
        left.mkdir(parents=True)
        (left / "disk-0.qcow2.partial").touch()
        new = repository.path / "ctx/zzz-new/disk-0.qcow2.partial"
        asked = 0

        def stopped() -> bool:
            """A backup begins right after the stop, at each moment in turn."""
            nonlocal asked
            asked += 1
            if asked == looks:
                new.parent.mkdir(parents=True, exist_ok=True)
                new.touch()
            return asked >= looks

        repository.remove_leftovers(KnownJobs(), stopped)
        assert new.exists()

    def test_folders_that_cannot_be_swept_do_not_keep_others_from_it(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("bad/job", "lost+found/job", "ok/job"):
            (repository.path / name).mkdir(parents=True)
            (repository.path / name / "disk-0.manifest").touch()
        real = Path.iterdir

        def iterdir(path: Path) -> Iterator[Path]:
            # Root, as which tests may run, reads every folder.
            if path.name == "bad":
                raise PermissionError(13, "Permission denied")
            return real(path)

        monkeypatch.setattr(Path, "iterdir", iterdir)
        with structlog.testing.capture_logs() as logs:
            assert repository.remove_leftovers() == ["ok/job/disk-0.manifest"]
        assert [one["event"] for one in logs] == ["folder_not_swept"]

    def test_links_are_not_followed(self, repository: Repository, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        (outside / "job").mkdir(parents=True)
        (outside / "job/precious.partial").touch()
        (repository.path / "ctx").symlink_to(outside)
        (repository.path / "link.partial").symlink_to(outside / "job/precious.partial")
        assert repository.remove_leftovers() == []
        assert (outside / "job/precious.partial").exists()


def test_unsealed_layer_cannot_be_read_or_built_on(repository: Repository) -> None:
    backup = BackedUpDisk(repository, GuestDisk(CLUSTER_BYTES))
    writer = backup.writer("job-0")
    writer.sync()
    with pytest.raises(LayerDamaged):
        repository.open_chain(["ctx-backup-pgtest1-1/job-0/disk-0.qcow2"])
