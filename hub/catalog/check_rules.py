"""The rules of the catalog's rows, each as a question for the rows that break it."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import Select, String, and_, case, cast, func, literal, or_, select
from sqlalchemy.orm import aliased

from hub.catalog.models import BackupDisk, BackupJob, BackupRepository, VmBackupContext
from hub.jobs.states import LIVE, BackupType, ReadMethod, Status

# What it is about, and what is wrong.
Question: TypeAlias = "Select[str, str]"


def _is_live(column: Any) -> Any:
    return column.in_(tuple(LIVE))


def _completed_with_other_disks() -> Question:
    """Completed if and only if all disks are, and there are as many as it says."""
    completed = func.sum(case((BackupDisk.status == Status.COMPLETED, 1), else_=0))
    count = func.count(BackupDisk.id)
    return (
        select(BackupJob.id, literal("is completed, but not all disks that it counts are"))
        .outerjoin(BackupDisk, BackupDisk.backup_job_id == BackupJob.id)
        .where(BackupJob.status == Status.COMPLETED)
        .group_by(BackupJob.id, BackupJob.disk_count)
        .having(or_(completed != count, count != BackupJob.disk_count, count == 0))
    )


def _completed_disk_of_other_job() -> Question:
    return (
        select(BackupJob.id, literal("has a completed disk, but is not completed"))
        .join(BackupDisk, BackupDisk.backup_job_id == BackupJob.id)
        .where(BackupJob.status != Status.COMPLETED, BackupDisk.status == Status.COMPLETED)
        .distinct()
    )


def _wrong_disk_count() -> Question:
    """Rows of a job's disks come with its opening, all at once."""
    count = func.count(BackupDisk.id)
    return (
        select(BackupJob.id, literal("has another number of disks than it counts"))
        .outerjoin(BackupDisk, BackupDisk.backup_job_id == BackupJob.id)
        .where(BackupJob.status != Status.COMPLETED)
        .group_by(BackupJob.id, BackupJob.disk_count)
        .having(count != BackupJob.disk_count)
    )


def _incomplete_facts() -> Question:
    """What an increment and a restore go by. Imported disks have no digest."""
    return select(_disk_name(), literal("is completed without a path, an end, or a digest")).where(
        BackupDisk.status == Status.COMPLETED,
        or_(
            BackupDisk.qcow2_path.is_(None),
            BackupDisk.completed_at.is_(None),
            and_(BackupDisk.root_digest.is_(None), BackupDisk.legacy_id.is_(None)),
        ),
    )


def _live_twice() -> Question:
    return (
        select(BackupJob.vm_backup_context_id, literal("has more than one running job"))
        .where(_is_live(BackupJob.status))
        .group_by(BackupJob.vm_backup_context_id)
        .having(func.count() > 1)
    )


def _wrong_live_mark() -> Question:
    """The mark is what makes the database refuse a second running job."""
    return select(
        BackupJob.id, literal("is marked as running and is not, or the other way round")
    ).where(
        or_(
            and_(
                _is_live(BackupJob.status),
                func.coalesce(BackupJob.active_context_id, "") != BackupJob.vm_backup_context_id,
            ),
            and_(~_is_live(BackupJob.status), BackupJob.active_context_id.is_not(None)),
        )
    )


def _other_place() -> Question:
    return (
        select(BackupJob.id, literal("is in another repository than its context"))
        .join(VmBackupContext, VmBackupContext.context_id == BackupJob.vm_backup_context_id)
        .where(BackupJob.repository_id != VmBackupContext.repository_id)
    )


def _other_context() -> Question:
    return (
        select(_disk_name(), literal("is in another context than its job"))
        .join(BackupJob, BackupJob.id == BackupDisk.backup_job_id)
        .where(BackupDisk.vm_backup_context_id != BackupJob.vm_backup_context_id)
    )


def _default_twice() -> Question:
    return (
        select(func.max(BackupRepository.name), literal("is not the only default repository"))
        .where(BackupRepository.is_default)
        .having(func.count() > 1)
    )


def _without_base() -> Question:
    """An increment without a base, or a full with one. Of what never completed nothing is read."""
    return select(
        _disk_name(), literal("is an increment without a base, or a full with one")
    ).where(
        BackupDisk.status == Status.COMPLETED,
        or_(
            and_(
                BackupDisk.backup_type == BackupType.INCREMENTAL, BackupDisk.base_disk_id.is_(None)
            ),
            and_(BackupDisk.backup_type == BackupType.FULL, BackupDisk.base_disk_id.is_not(None)),
        ),
    )


def _wrong_read_method() -> Question:
    """Only what is read as a whole stands by itself. Older rows do not say how they were read."""
    return select(
        _disk_name(), literal("was read as a whole and has a base, or the other way round")
    ).where(
        BackupDisk.status == Status.COMPLETED,
        or_(
            and_(
                BackupDisk.read_method == ReadMethod.ALLOCATED, BackupDisk.base_disk_id.is_not(None)
            ),
            and_(BackupDisk.read_method != ReadMethod.ALLOCATED, BackupDisk.base_disk_id.is_(None)),
        ),
    )


def _unfit_base() -> Question:
    """Each base is an older completed one of the same disk: so every chain ends, in a full."""
    base, base_job = aliased(BackupDisk), aliased(BackupJob)
    return (
        select(
            _disk_name(),
            literal(
                "builds on a disk that cannot be its base: another one, or of another "
                "context, or of a job that is later or not completed"
            ),
        )
        .join(BackupJob, BackupJob.id == BackupDisk.backup_job_id)
        .join(base, base.id == BackupDisk.base_disk_id)
        .join(base_job, base_job.id == base.backup_job_id)
        .where(
            BackupDisk.status == Status.COMPLETED,
            or_(
                base.vm_backup_context_id != BackupDisk.vm_backup_context_id,
                base.status != Status.COMPLETED,
                base_job.status != Status.COMPLETED,
                base_job.run_number >= BackupJob.run_number,
                base.disk_uuid != BackupDisk.disk_uuid,
                base.vmware_disk_key != BackupDisk.vmware_disk_key,
                base.capacity_bytes > BackupDisk.capacity_bytes,
            ),
        )
    )


def _wrong_counters() -> Question:
    restore_points = (
        select(
            BackupJob.vm_backup_context_id.label("context_id"),
            func.count().label("points"),
            func.sum(BackupJob.bytes_stored).label("stored"),
        )
        .where(BackupJob.status == Status.COMPLETED)
        .group_by(BackupJob.vm_backup_context_id)
        .subquery()
    )
    return (
        select(
            VmBackupContext.context_id,
            literal("counts other restore points or stored bytes than its jobs have"),
        )
        .outerjoin(restore_points, restore_points.c.context_id == VmBackupContext.context_id)
        .where(
            or_(
                VmBackupContext.restore_point_count != func.coalesce(restore_points.c.points, 0),
                VmBackupContext.bytes_stored != func.coalesce(restore_points.c.stored, 0),
            )
        )
    )


def _wrong_job_bytes() -> Question:
    stored = func.coalesce(func.sum(BackupDisk.bytes_stored), 0)
    return (
        select(BackupJob.id, literal("has other stored bytes than its disks together"))
        .outerjoin(BackupDisk, BackupDisk.backup_job_id == BackupJob.id)
        .where(BackupJob.status == Status.COMPLETED)
        .group_by(BackupJob.id, BackupJob.bytes_stored)
        .having(stored != BackupJob.bytes_stored)
    )


def _wrong_last_backup() -> Question:
    """The last backup is the completed job with the highest number; its facts are copied."""
    newest = (
        select(
            BackupJob.vm_backup_context_id.label("context_id"),
            func.max(BackupJob.run_number).label("run_number"),
        )
        .where(BackupJob.status == Status.COMPLETED)
        .group_by(BackupJob.vm_backup_context_id)
        .subquery()
    )
    last = aliased(BackupJob)
    unequal = or_(
        VmBackupContext.last_backup_id != last.id,
        VmBackupContext.last_backup_type != last.backup_type,
        VmBackupContext.last_backup_at != last.completed_at,
        VmBackupContext.last_backup_id.is_(None),
        VmBackupContext.last_backup_type.is_(None),
        VmBackupContext.last_backup_at.is_(None),
    )
    return (
        select(VmBackupContext.context_id, literal("names another last backup than its jobs have"))
        .outerjoin(newest, newest.c.context_id == VmBackupContext.context_id)
        .outerjoin(
            last,
            and_(
                last.vm_backup_context_id == newest.c.context_id,
                last.run_number == newest.c.run_number,
            ),
        )
        .where(
            or_(
                and_(last.id.is_(None), VmBackupContext.last_backup_id.is_not(None)),
                and_(last.id.is_not(None), unequal),
            )
        )
    )


def _wrong_run_number() -> Question:
    return (
        select(
            VmBackupContext.context_id, literal("has a job with a number that it never gave out")
        )
        .join(BackupJob, BackupJob.vm_backup_context_id == VmBackupContext.context_id)
        .group_by(VmBackupContext.context_id, VmBackupContext.total_backups_run)
        .having(func.max(BackupJob.run_number) > VmBackupContext.total_backups_run)
    )


def _disk_name() -> Any:
    return BackupDisk.backup_job_id.concat(" disk ").concat(cast(BackupDisk.disk_index, String))


RULES: Final[Sequence[tuple[str, Callable[[], Question]]]] = (
    ("jobs", _completed_with_other_disks),
    ("jobs", _completed_disk_of_other_job),
    ("jobs", _wrong_disk_count),
    ("jobs", _incomplete_facts),
    ("jobs", _live_twice),
    ("jobs", _wrong_live_mark),
    ("jobs", _other_place),
    ("jobs", _other_context),
    ("jobs", _default_twice),
    ("chains", _without_base),
    ("chains", _wrong_read_method),
    ("chains", _unfit_base),
    ("counters", _wrong_counters),
    ("counters", _wrong_job_bytes),
    ("counters", _wrong_last_backup),
    ("counters", _wrong_run_number),
)
