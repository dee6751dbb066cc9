"""The whole way: an old catalog and its files become restore points, and nothing else changes."""

import pytest
from sqlalchemy import select

from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext
from hub.jobs.restore_disk import restore_disk
from hub.jobs.states import BackupType, Status
from tests.unit.hub.legacy.conftest import Importer, jobs_of, left_out
from tests.unit.hub.legacy.decoded import decoded
from tests.unit.hub.legacy.old_system import REPOSITORY, VM, OldSystem, disk_id, group_id

BOTH = pytest.mark.parametrize(
    "engine_name", ["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)]
)


def with_21_rows(old: OldSystem) -> None:
    """1 context, 7 backups of 3 disks."""
    old.add_context()
    old.add_repository()
    old.add_backups(fulls=(0, 4))


def test_dry_run_tells_all_and_changes_nothing(importer: Importer) -> None:
    with_21_rows(importer.old)
    importer.old.save()
    before, files = importer.dump(), importer.old.hashes()
    plan = importer.plan_of_saved()
    assert jobs_of(plan) == {group_id(run): [0, 1, 2] for run in range(7)}
    assert not plan.left_out and plan.is_complete
    assert importer.dump() == before
    assert importer.old.hashes() == files


@BOTH
def test_apply_makes_rows_with_foreign_keys_and_leaves_the_files_alone(importer: Importer) -> None:
    with_21_rows(importer.old)
    files = importer.old.hashes()
    importer.apply()
    now = importer.old.hashes()
    assert set(now) - set(files) == {"sendense-repository.json"}
    assert {name: now[name] for name in files} == files
    with importer.parts.catalog.read() as session:
        (context,) = session.scalars(select(VmBackupContext)).all()
        jobs = session.scalars(select(BackupJob).order_by(BackupJob.run_number)).all()
        disks = session.scalars(select(BackupDisk)).all()
    assert (context.vm_name, context.vmware_vm_id, context.site) == (VM, "vm-1", "lab")
    assert context.instance_uuid == "legacy:ctx-pgtest1-20251006-203401"
    assert (context.total_backups_run, context.successful_backups) == (7, 7)
    assert context.restore_point_count == 7
    assert context.bytes_stored == sum(disk.bytes_stored for disk in disks)
    assert context.last_backup_id == group_id(6)
    assert context.last_backup_type is BackupType.INCREMENTAL
    assert [job.id for job in jobs] == [group_id(run) for run in range(7)]
    assert [job.run_number for job in jobs] == [1, 2, 3, 4, 5, 6, 7]
    assert [job.backup_type.value for job in jobs] == [
        "full" if run in (0, 4) else "incremental" for run in range(7)
    ]
    assert all(job.imported_at and job.status is Status.COMPLETED for job in jobs)
    rows = {disk.legacy_id: disk for disk in disks}
    assert len(rows) == 21
    for run in range(7):
        for disk in range(3):
            row = rows[disk_id(run, disk)]
            base = None if run in (0, 4) else rows[disk_id(run - 1, disk)].id
            file = importer.old.file(run, disk)
            assert row.base_disk_id == base
            assert row.qcow2_path == str(file.relative_to(importer.old.folder))
            assert row.bytes_stored == file.stat().st_size
            assert row.root_digest is None
            assert row.disk_change_id == f"52 3c ec 11-{disk}/{run + 1}"
            assert row.capacity_bytes == len(importer.old.content[file])


@BOTH
def test_second_import_changes_nothing(importer: Importer) -> None:
    with_21_rows(importer.old)
    importer.apply()
    before, files = importer.dump(), importer.old.hashes()
    plan = importer.apply()
    assert importer.dump() == before
    assert importer.old.hashes() == files
    assert plan.is_complete
    assert [len(context.new_jobs) for context in plan.contexts] == [0]


def test_imported_disks_are_restored_byte_for_byte(importer: Importer) -> None:
    with_21_rows(importer.old)
    importer.apply()
    for run in (0, 3, 6):
        for disk in range(3):
            content = importer.old.content[importer.old.file(run, disk)]
            assert restored(importer, group_id(run), disk) == content, (run, disk)


def test_a_row_that_comes_later_takes_its_place_in_the_order(importer: Importer) -> None:
    importer.old.add_context()
    importer.old.add_repository()
    importer.old.add_backups(disks=2, fulls=(0, 4))
    whole = list(importer.old.jobs)
    importer.old.jobs[:] = [row for row in whole if row["parent_backup_id"] != group_id(3)]
    missing = importer.apply()
    assert jobs_of(missing) == {group_id(run): [0, 1] for run in (0, 1, 2, 4, 5, 6)}
    importer.old.jobs[:] = whole
    plan = importer.apply()
    assert [len(context.new_jobs) for context in plan.contexts] == [1]
    with importer.parts.catalog.read() as session:
        jobs = session.scalars(select(BackupJob).order_by(BackupJob.run_number)).all()
        (context,) = session.scalars(select(VmBackupContext)).all()
    assert [(job.id, job.run_number) for job in jobs] == [
        (group_id(run), run + 1) for run in range(7)
    ]
    assert (context.total_backups_run, context.last_backup_id) == (7, group_id(6))
    assert restored(importer, group_id(3), 1) == importer.old.content[importer.old.file(3, 1)]


def test_without_a_hint_where_the_files_are_every_row_is_left_out(importer: Importer) -> None:
    importer.old.add_context()
    importer.old.add_backups(runs=1)
    plan = importer.plan()
    assert not plan.contexts and not plan.is_complete
    assert set(left_out(plan)) == {disk_id(0, disk) for disk in range(3)}
    assert f"--repository {REPOSITORY}=NAME_OR_PATH" in left_out(plan)[disk_id(0, 0)]
    chosen = importer.plan(repositories={REPOSITORY: str(importer.old.folder)})
    assert chosen.is_complete and jobs_of(chosen) == {group_id(0): [0, 1, 2]}


def restored(importer: Importer, job_id: str, disk: int) -> bytes:
    return decoded(restore_disk(importer.parts, job_id, disk))
