"""What is broken is left out whole, with all that builds on it, and with the reason."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.hub.legacy.conftest import Importer, jobs_of, left_out
from tests.unit.hub.legacy.old_system import OldSystem, disk_id, group_id, qemu_img

DISKS = (0, 1)


@pytest.fixture
def four(old: OldSystem) -> OldSystem:
    """4 backups of 2 disks; the last one is a full."""
    old.add_context()
    old.add_repository()
    old.add_backups(runs=4, disks=2, fulls=(0, 3))
    return old


def assert_left_out(importer: Importer, runs: set[int], why: str, **choices: object) -> None:
    """Just these runs are left out, all disks of them; the first of them for this reason."""
    plan = importer.plan(**choices)
    assert jobs_of(plan) == {group_id(run): [0, 1] for run in range(4) if run not in runs}
    reasons = left_out(plan)
    assert set(reasons) == {disk_id(run, disk) for run in runs for disk in DISKS}
    assert why in reasons[disk_id(min(runs), 0)]
    for run in runs - {min(runs)}:
        assert f"it builds on {group_id(run - 1)}, which is left out" in reasons[disk_id(run, 1)]
    assert not plan.is_complete


def corrupt(path: Path) -> None:
    """An L2 table that points beyond the file."""
    with path.open("r+b") as file:
        file.seek(40)
        l1 = int.from_bytes(file.read(8), "big")
        file.seek(l1)
        l2 = int.from_bytes(file.read(8), "big") & 0x00FFFFFFFFFFFE00
        file.seek(l2)
        file.write(((1 << 63) | (1 << 40)).to_bytes(8, "big") * 4)


BREAKS: dict[str, tuple[Callable[[OldSystem, Path], None], str]] = {
    "missing": (lambda old, path: path.unlink(), "is not there"),
    "corrupted": (lambda old, path: corrupt(path), "corruptions"),
    "cut off": (lambda old, path: os.truncate(path, 70_000), "is damaged"),
    "header gone": (lambda old, path: os.truncate(path, 3), "qemu-img info: "),
    "not QCOW2": (lambda old, path: path.write_bytes(bytes(1 << 20)), "not in qcow2 format"),
    "a folder": (lambda old, path: (path.unlink(), path.mkdir()), "with 0 QCOW2 files"),  # type: ignore[func-returns-value]
    "a pipe": (lambda old, path: (path.unlink(), os.mkfifo(path)), "no regular file"),  # type: ignore[func-returns-value]
    "another base": (
        lambda old, path: rebase(path, path.parent / f"{disk_id(3, 0)}.qcow2"),
        "its recorded parent",
    ),
    "no base": (lambda old, path: rebase(path, None), "increment, but builds on no file"),
    "base outside": (
        lambda old, path: rebase(path, shutil.copy(path, old.folder.parent / "x.qcow2")),
        "its recorded parent",
    ),
    "base in the network": (
        lambda old, path: rebase(path, Path("nbd://127.0.0.1:1/x")),
        "is no path",
    ),
    "raw base": (lambda old, path: rebase(path, path, "raw"), "format 'raw', not qcow2"),
    "smaller than its base": (lambda old, path: shrink(path), "smaller than the one it builds on"),
}


def rebase(path: Path, base: Path | str | None, kind: str = "qcow2") -> None:
    """Another name in the header, nothing else."""
    backing = ("-b", str(base), "-F", kind) if base is not None else ("-b", "")
    qemu_img("rebase", "-u", "-f", "qcow2", *backing, str(path))


def shrink(path: Path) -> None:
    base = path.parent / f"{disk_id(0, 0)}.qcow2"
    path.unlink()
    qemu_img("create", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(path), "65536")


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_layer_takes_its_backup_and_what_builds_on_it_out(
    importer: Importer, four: OldSystem, name: str
) -> None:
    break_it, why = BREAKS[name]
    for each in four.jobs:
        # Recorded, so that a backing file can be another one than that.
        run, disk = next((r, d) for r in range(4) for d in DISKS if disk_id(r, d) == each["id"])
        each["parent_backup_id"] = disk_id(run - 1, disk) if run in (1, 2) else None
    break_it(four, four.file(1, 0))
    files = four.hashes() if name != "a pipe" else {}
    assert_left_out(importer, {1, 2}, why)
    assert name == "a pipe" or four.hashes() == files


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("another base", "its recorded parent"),
        ("base outside", "no layer of this disk in the old catalog"),
    ],
)
def test_without_recorded_parents_the_backing_file_must_be_a_layer_of_the_disk(
    importer: Importer, four: OldSystem, name: str, why: str
) -> None:
    if name == "another base":
        rebase(four.file(1, 0), four.file(0, 1))
        why = "no layer of this disk in the old catalog"
    else:
        BREAKS[name][0](four, four.file(1, 0))
    assert_left_out(importer, {1, 2}, why)


def test_backing_file_that_is_another_layer_of_the_disk_is_evidence_enough(
    importer: Importer, four: OldSystem
) -> None:
    # A differential: the third backup builds on the first one, past the second.
    path = four.file(2, 0)
    path.unlink()
    four.add_layer(path, 2, 0, four.file(0, 0))
    four.row(2, 0)["backup_type"] = "differential"
    plan = importer.apply()
    assert plan.is_complete
    disks = {disk.legacy_id: disk for job in plan.contexts[0].jobs for disk in job.disks}
    assert disks[disk_id(2, 0)].base_legacy_id == disk_id(0, 0)
    assert disks[disk_id(2, 1)].base_legacy_id == disk_id(1, 1)


class TestRows:
    def test_running_backup_is_left_out_with_what_builds_on_it(
        self, importer: Importer, four: OldSystem
    ) -> None:
        four.row(1, 1)["status"] = "running"
        plan = importer.plan()
        assert set(jobs_of(plan)) == {group_id(0), group_id(3)}
        assert "is running" in left_out(plan)[disk_id(1, 0)]
        assert "which is left out" in left_out(plan)[disk_id(2, 0)]

    def test_failed_backup_alone_does_not_make_the_import_incomplete(
        self, importer: Importer, four: OldSystem
    ) -> None:
        four.add_row(9, 0, four.folder / "never", full=True, parent="P9", status="failed")
        four.add_row(9, 1, four.folder / "never", full=True, parent="P9", status="failed")
        plan = importer.plan()
        assert plan.is_complete and len(jobs_of(plan)) == 4
        assert left_out(plan)[disk_id(9, 0)] == "the backup is failed"

    def test_type_that_is_not_the_files_is_told(self, importer: Importer, four: OldSystem) -> None:
        four.row(1, 0)["backup_type"] = "full"
        assert_left_out(importer, {1, 2}, "is recorded as a full, but builds on")

    def test_size_that_is_not_the_files_is_told(self, importer: Importer, four: OldSystem) -> None:
        four.disks.append(
            {"id": 1, "backup_job_id": disk_id(3, 0), "disk_index": 0, "size_gb": 40}
            | {"qcow2_path": str(four.file(3, 0)), "status": "completed"}
        )
        plan = importer.plan()
        assert list(jobs_of(plan)) == [group_id(run) for run in range(3)]
        assert set(left_out(plan)) == {disk_id(3, 0), disk_id(3, 1), "1"}
        assert "40 GB are recorded" in left_out(plan)["1"]

    def test_circle_of_parents_is_left_out(self, importer: Importer, four: OldSystem) -> None:
        for run, parent in ((1, 2), (2, 1)):
            for disk in DISKS:
                four.row(run, disk)["parent_backup_id"] = disk_id(parent, disk)
                rebase(four.file(run, disk), four.file(parent, disk))
        for run in (0, 3):
            for disk in DISKS:
                four.row(run, disk)["parent_backup_id"] = None
        plan = importer.plan()
        assert set(jobs_of(plan)) == {group_id(0), group_id(3)}
        assert {left_out(plan)[disk_id(run, 1)] for run in (1, 2)} == {
            "its recorded parents and files lead in a circle"
        }

    def test_row_that_is_its_own_parent_is_left_out(
        self, importer: Importer, four: OldSystem
    ) -> None:
        for disk in DISKS:
            for run in range(4):
                before = disk_id(run - 1, disk) if run in (1, 2) else None
                four.row(run, disk)["parent_backup_id"] = before
        four.row(1, 0)["parent_backup_id"] = disk_id(1, 0)
        rebase(four.file(1, 0), four.file(1, 0))
        assert_left_out(importer, {1, 2}, "builds on a layer of its own backup")

    def test_missing_row_of_a_disk_between_others_is_noticed(
        self, importer: Importer, four: OldSystem
    ) -> None:
        # Of a chain the file above would be without a base; of fulls only this tells.
        four.jobs.clear()
        four.add_backups(runs=3, disks=2, fulls=(0, 1, 2))
        four.jobs.remove(four.row(1, 0))
        plan = importer.plan()
        assert set(jobs_of(plan)) == {group_id(0), group_id(2)}
        assert left_out(plan)[disk_id(1, 1)].startswith("it lacks disk 0")

    def test_disk_that_came_later_and_one_that_went_are_fine(
        self, importer: Importer, old: OldSystem
    ) -> None:
        old.add_context()
        old.add_repository()
        old.add_backups(runs=3, disks=3, fulls=(0, 1, 2))
        for run, disk in ((0, 2), (2, 0)):
            old.jobs.remove(old.row(run, disk))
        plan = importer.plan()
        assert plan.is_complete
        assert list(jobs_of(plan).values()) == [[0, 1], [0, 1, 2], [1, 2]]

    def test_orphans_of_backup_disks_are_listed(self, importer: Importer, four: OldSystem) -> None:
        four.disks.append(
            {"id": 77, "backup_job_id": "gone", "disk_index": 0, "status": "completed"}
        )
        plan = importer.plan()
        assert len(jobs_of(plan)) == 4
        assert "its job 'gone' is not in the old catalog" in left_out(plan)["77"]

    def test_null_change_ids_and_times_are_no_obstacle(
        self, importer: Importer, four: OldSystem
    ) -> None:
        for each in four.jobs:
            each |= {
                "change_id": None,
                "created_at": None,
                "started_at": None,
                "completed_at": None,
            }
        plan = importer.apply()
        assert plan.is_complete and list(jobs_of(plan))[:3] == [group_id(run) for run in range(3)]
        oldest = min(four.file(0, disk).stat().st_mtime for disk in DISKS)
        made = {job.key: job.created_at for job in plan.contexts[0].jobs}
        assert made[group_id(0)].timestamp() == pytest.approx(oldest)

    def test_names_of_any_script_are_kept(self, importer: Importer, old: OldSystem) -> None:
        name = "数据库-é-🐘"
        old.add_context(vm_name=name, context_id="ctx-é")
        old.add_repository()
        old.add_backups(runs=2, disks=2, vm=name)
        plan = importer.apply()
        assert plan.is_complete and plan.contexts[0].vm_name == name
        assert importer.plan().contexts[0].existing_id.startswith("ctx-backup-")


class TestFiles:
    def test_two_rows_of_one_file_are_left_out(self, importer: Importer, four: OldSystem) -> None:
        four.file(3, 0).unlink()
        four.file(3, 0).hardlink_to(four.file(0, 0))
        plan = importer.plan()
        assert not plan.contexts
        assert "is the file of backup_jobs" in left_out(plan)[disk_id(3, 0)]
        assert "is the file of backup_jobs" in left_out(plan)[disk_id(0, 1)]

    def test_file_outside_the_repository_is_refused(
        self, importer: Importer, four: OldSystem, tmp_path: Path
    ) -> None:
        elsewhere = shutil.copy(four.file(3, 0), tmp_path / "elsewhere.qcow2")
        four.row(3, 0)["repository_path"] = str(elsewhere)
        assert_left_out(importer, {3}, "lies outside the repository's folder")

    @pytest.mark.parametrize("way", ["link", "dots"])
    def test_path_that_leads_out_is_refused(
        self, importer: Importer, four: OldSystem, tmp_path: Path, way: str
    ) -> None:
        elsewhere = shutil.move(four.file(3, 0), tmp_path / "elsewhere.qcow2")
        if way == "link":
            four.file(3, 0).symlink_to(elsewhere)
        else:
            four.row(3, 0)["repository_path"] = f"{four.folder}/../elsewhere.qcow2"
        assert_left_out(importer, {3}, "lies outside the repository's folder")

    @pytest.mark.parametrize("names", ["id", "disk", "only"])
    def test_path_may_be_the_files_folder(
        self, importer: Importer, four: OldSystem, names: str
    ) -> None:
        for run in range(4):
            for disk in DISKS:
                old_path = four.file(run, disk)
                four.row(run, disk)["repository_path"] = str(old_path.parent)
        if names != "id":
            # A folder a backup, or a disk of one.
            four.jobs[:] = [each for each in four.jobs if disk_id(0, 0)[:-7] in each["id"]]
            four.jobs[:] = [four.row(0, 0)] if four.jobs else []
            folder = four.folder / "one"
            folder.mkdir()
            name = "disk-0.qcow2" if names == "disk" else "whatever.qcow2"
            source = next(path for path in four.content if path.stem == disk_id(0, 0))
            shutil.copyfile(source, folder / name)
            if names == "disk":
                shutil.copyfile(source, folder / "disk-1.qcow2")
            four.row(0, 0)["repository_path"] = str(folder)
        plan = importer.plan()
        assert plan.is_complete, left_out(plan)
        assert len(jobs_of(plan)) == (4 if names == "id" else 1)

    def test_layer_with_another_data_file_is_refused(
        self, importer: Importer, four: OldSystem
    ) -> None:
        four.file(3, 0).unlink()
        data = four.folder / "data.raw"
        qemu_img(*("create", "-f", "qcow2", "-o", f"data_file={data}"), str(four.file(3, 0)), "1M")
        assert_left_out(importer, {3}, "keeps its data in another file")

    def test_layer_that_somebody_writes_to_is_refused(
        self, importer: Importer, four: OldSystem
    ) -> None:
        four.save()
        writer = subprocess.Popen(
            ["qemu-io", "-f", "qcow2", str(four.file(3, 0))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert writer.stdin and writer.stdout
            writer.stdin.write(b"length\n")
            writer.stdin.flush()
            assert writer.stdout.readline()
            assert_left_out(importer, {3}, "lock")
        finally:
            writer.kill()
            writer.communicate(timeout=20)

    def test_leaked_clusters_are_a_note(self, importer: Importer, four: OldSystem) -> None:
        with four.file(3, 0).open("r+b") as file:
            # The refcount of a cluster at the file's end, which nothing uses.
            file.seek(48)
            table = int.from_bytes(file.read(8), "big")
            file.seek(table)
            block = int.from_bytes(file.read(8), "big")
            clusters = four.file(3, 0).stat().st_size // 65536
            file.seek(block + 2 * clusters)
            file.write(b"\0\1")
            file.truncate((clusters + 1) * 65536)
        plan = importer.plan()
        assert plan.is_complete
        notes = {disk.legacy_id: disk.notes for job in plan.contexts[0].jobs for disk in job.disks}
        assert "1 clusters of the file are in no use" in notes[disk_id(3, 0)][0]

    def test_absolute_backing_names_are_followed_too(
        self, importer: Importer, four: OldSystem
    ) -> None:
        for run in (1, 2):
            for disk in DISKS:
                rebase(four.file(run, disk), four.file(run - 1, disk))
        assert importer.plan().is_complete

    def test_folder_mounted_elsewhere_is_found_by_the_old_repositorys_path(
        self, importer: Importer, four: OldSystem
    ) -> None:
        moved = four.folder.with_name("moved")
        four.folder.rename(moved)
        plan = importer.plan(repositories={"repo-local-1": str(moved)})
        assert plan.is_complete and plan.contexts[0].place.root == moved
