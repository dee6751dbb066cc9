"""Trying a repository's folder: what each check finds, and what is left behind."""

import errno
import json
import os
from pathlib import Path

import pytest

from hub.repository import Repository, RepositoryUnusable
from hub.repository import probe as probing
from hub.repository.facts import Space
from hub.repository.file_calls import FileCalls, replaced
from hub.repository.mark import remove_mark, rename_in_mark
from hub.repository.probe import CHECKS, PROBE_BYTES, checks, look
from shared.errors import SendenseError

MARK = "sendense-repository.json"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def probe_in(folder: Path) -> Path:
    (found,) = folder.glob("sendense-probe-*")
    return found


class TestChecks:
    def test_usable_folder_passes_all_and_is_left_as_it_was(self, repository: Repository) -> None:
        made = list(checks(repository.path, repository.repository_id))
        assert [check.name for check in made] == list(CHECKS)
        assert all(check.passed for check in made), made
        assert names(repository.path) == {MARK}

    def test_probe_is_on_the_disk_between_write_and_remove(self, repository: Repository) -> None:
        run = checks(repository.path, repository.repository_id)
        assert [next(run).name for _ in range(3)] == ["mark", "space", "write"]
        assert probe_in(repository.path).stat().st_size == PROBE_BYTES

    def test_probe_that_a_crash_left_goes_at_the_next_start(self, repository: Repository) -> None:
        run = checks(repository.path, repository.repository_id)
        while next(run).name != "write":
            pass
        run.close()
        left = probe_in(repository.path).name
        assert repository.remove_leftovers() == [left]
        assert names(repository.path) == {MARK}

    @pytest.mark.parametrize("mark", [None, '{"format": 1, "repository_id": "repo-9"}', "?"])
    def test_nothing_is_written_without_the_mark_of_this_repository(
        self, repository: Repository, mark: str | None
    ) -> None:
        (repository.path / MARK).unlink()
        if mark is not None:
            (repository.path / MARK).write_text(mark)
        before = names(repository.path)
        (only,) = checks(repository.path, repository.repository_id)
        assert (only.name, only.passed) == ("mark", False)
        assert str(repository.path) in only.message
        assert names(repository.path) == before

    def test_folder_that_is_away_fails_at_the_mark(self, tmp_path: Path) -> None:
        (only,) = checks(tmp_path / "away", "repo-1")
        assert not only.passed
        assert "is it mounted" in only.message

    def test_little_space_fails_and_the_rest_is_tried(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probing, "RESERVE_BYTES", 1 << 62)
        made = {check.name: check for check in checks(repository.path, repository.repository_id)}
        assert not made["space"].passed
        assert "make room" in made["space"].message
        assert made["remove"].passed

    @pytest.mark.parametrize(
        ("length_bytes", "told"),
        [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1 << 20, "1 MiB"),
            ((1 << 20) - 1, "1 MiB"),
            (56014 << 20, "54.7 GiB"),
            (258019 << 20, "252 GiB"),
            (1023 << 30, "1023 GiB"),
            ((1 << 40) - 1, "1 TiB"),
            (3 << 39, "1.5 TiB"),
            (1 << 62, "4096 PiB"),
        ],
    )
    def test_sizes_are_told_in_short_numbers(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch, length_bytes: int, told: str
    ) -> None:
        assert probing.size(length_bytes) == told
        monkeypatch.setattr(probing, "room", lambda folder: Space(1 << 62, length_bytes))
        made = {check.name: check for check in checks(repository.path, repository.repository_id)}
        assert made["space"].message.startswith(f"{told} of 4096 PiB are free")

    @pytest.mark.parametrize(
        ("number", "advice"),
        [
            (errno.ENOSPC, "make room"),
            (errno.EROFS, "mount it writable"),
            (errno.EACCES, "let the hub's user write"),
            (errno.EIO, "check its disk or mount"),
        ],
        ids=lambda value: errno.errorcode.get(value, "") if isinstance(value, int) else "",
    )
    def test_failed_write_says_what_to_do_and_leaves_nothing(
        self,
        repository: Repository,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        advice: str,
    ) -> None:
        def fsync(fd: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)
        made = list(checks(repository.path, repository.repository_id))
        assert [(check.name, check.passed) for check in made] == [
            ("mark", True),
            ("space", True),
            ("write", False),
        ]
        assert os.strerror(number) in made[-1].message
        assert advice in made[-1].message
        assert names(repository.path) == {MARK}

    @pytest.mark.parametrize("change", ["flip", "cut", "grow"])
    def test_bytes_that_changed_fail_the_read_and_the_probe_goes(
        self, repository: Repository, change: str
    ) -> None:
        run = checks(repository.path, repository.repository_id)
        while next(run).name != "write":
            pass
        with probe_in(repository.path).open("r+b") as file:
            if change == "flip":
                file.seek(PROBE_BYTES // 2)
                (byte,) = file.read(1)
                file.seek(PROBE_BYTES // 2)
                file.write(bytes([byte ^ 1]))
            elif change == "cut":
                file.truncate(PROBE_BYTES - 1)
            else:
                file.seek(0, os.SEEK_END)
                file.write(b"x")
        read, remove = run
        assert (read.name, read.passed, remove.passed) == ("read", False, True)
        assert "other bytes" in read.message
        assert names(repository.path) == {MARK}

    def test_probe_that_vanished_fails_read_and_remove(self, repository: Repository) -> None:
        run = checks(repository.path, repository.repository_id)
        while next(run).name != "write":
            pass
        probe_in(repository.path).unlink()
        assert [(check.name, check.passed) for check in run] == [("read", False), ("remove", False)]


class TestLook:
    def test_usable_folder_has_room_and_is_not_touched(self, repository: Repository) -> None:
        before = repository.path.stat().st_mtime_ns
        space = look(repository.path, repository.repository_id)
        assert 0 < space.free_bytes < space.total_bytes
        assert repository.path.stat().st_mtime_ns == before

    def test_folder_that_cannot_be_written_to_is_unusable(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The tests may run as a user who may do everything.
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
        with pytest.raises(RepositoryUnusable, match="may not write"):
            look(repository.path, repository.repository_id)

    def test_folder_without_its_mark_is_unusable(self, repository: Repository) -> None:
        (repository.path / MARK).unlink()
        with pytest.raises(RepositoryUnusable, match="is it mounted"):
            look(repository.path, repository.repository_id)


class TestMark:
    def test_renaming_keeps_the_other_facts(self, repository: Repository) -> None:
        path = repository.path / MARK
        path.write_text(json.dumps(json.loads(path.read_text()) | {"made_by": "hand"}))
        rename_in_mark(repository.path, repository.repository_id, "cellar")
        assert json.loads(path.read_text()) == {
            "format": 1,
            "repository_id": repository.repository_id,
            "name": "cellar",
            "made_by": "hand",
        }
        assert names(repository.path) == {MARK}

    def test_renaming_that_fails_leaves_the_old_mark(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = (repository.path / MARK).read_bytes()

        def fsync(fd: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(SendenseError, match="no space left"):
            rename_in_mark(repository.path, repository.repository_id, "cellar")
        assert (repository.path / MARK).read_bytes() == before
        assert names(repository.path) == {MARK}

    def test_empty_folder_goes_with_its_mark(self, repository: Repository) -> None:
        (repository.path / f"{MARK}x1.partial").touch()
        (repository.path / "sendense-probe-x1.partial").touch()
        assert remove_mark(repository.path, repository.repository_id) is True
        assert not repository.path.exists()

    @pytest.mark.parametrize("name", ["ctx-backup-pgtest1-1", "other.partial", ".hidden"])
    def test_mark_stays_with_whatever_else_is_in_the_folder(
        self, repository: Repository, name: str
    ) -> None:
        (repository.path / name).mkdir()
        (repository.path / "sendense-probe-x1.partial").touch()
        before = (repository.path / MARK).read_bytes()
        with pytest.raises(RepositoryUnusable, match=f"the mark {MARK} stays.*'{name}'"):
            remove_mark(repository.path, repository.repository_id)
        assert names(repository.path) == {MARK, name, "sendense-probe-x1.partial"}
        assert (repository.path / MARK).read_bytes() == before

    def test_root_of_a_file_system_stays_without_the_mark(self, repository: Repository) -> None:
        (repository.path / "lost+found").mkdir()
        (repository.path / f"{MARK}x1.partial").touch()
        assert remove_mark(repository.path, repository.repository_id) is False
        assert names(repository.path) == {"lost+found"}

    def test_folder_that_is_a_mount_point_stays(self, repository: Repository) -> None:
        class MountPoint(FileCalls):
            def rmdir(self, path: Path | str, *, dir_fd: int | None = None) -> None:
                raise OSError(errno.EBUSY, "Device or resource busy")

        with replaced(MountPoint()):
            assert remove_mark(repository.path, repository.repository_id) is False
        assert names(repository.path) == set()

    def test_mark_of_another_repository_stays(self, repository: Repository) -> None:
        with pytest.raises(RepositoryUnusable, match="belongs to repository"):
            remove_mark(repository.path, "repo-9")
        with pytest.raises(RepositoryUnusable, match="belongs to repository"):
            rename_in_mark(repository.path, "repo-9", "cellar")
        assert names(repository.path) == {MARK}
