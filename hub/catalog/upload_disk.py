"""A disk's row while its clusters arrive: upload begun, sealed, broken."""

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, joinedload

from hub.catalog.compare_and_set import rows_moved
from hub.catalog.models import MAX_TEXT_CHARS, BackupDisk, BackupJob
from hub.catalog.open_job import full_instead_warning
from hub.catalog.queries import find_disk
from hub.errors import DiskNotUploadable, JobEnded
from hub.jobs.states import BackupType, Status
from shared.errors import SendenseError


@dataclass(frozen=True, slots=True)
class SealedFacts:
    """A sealed layer: bytes and place, as its row will say."""

    qcow2_path: str
    root_digest: str
    bytes_planned: int
    bytes_read: int
    bytes_transferred: int
    bytes_stored: int


def begin_upload(
    session: Session,
    job_id: str,
    disk_index: int,
    *,
    bytes_planned: int,
    full_instead: bool,
    full_reason: str,
    repeated: bool = False,
) -> BackupDisk:
    """Take the disk for an upload; a sealed one is returned as it is, to be answered again.

    `full_instead` clears the row's base before its layer exists, and warns.
    `repeated`: this caller tried before and does not know how it ended, so that a
    disk that is taken already is its own. Raises JobNotFound, DiskNotFound,
    JobEnded, DiskNotUploadable.
    """
    # One after the other: the job's warnings and type are of all its disks.
    session.execute(select(BackupJob.id).where(BackupJob.id == job_id).with_for_update())
    disk = find_disk(session, job_id, disk_index)
    if disk.sealed_at is not None and disk.status in (Status.RUNNING, Status.COMPLETED):
        return disk
    if disk.job.status is not Status.RUNNING:
        raise JobEnded(job_id, disk.job.status)
    if disk.status is Status.RUNNING and repeated:
        return disk
    if disk.status is not Status.PENDING:
        raise DiskNotUploadable(job_id, disk_index, f"it is {disk.status}")
    moved = rows_moved(
        session,
        update(BackupDisk)
        .where(BackupDisk.id == disk.id, BackupDisk.status == Status.PENDING)
        .values(status=Status.RUNNING, bytes_planned=bytes_planned),
    )
    if moved != 1:
        raise JobEnded(job_id, "ended meanwhile")
    if full_instead and disk.base_disk_id is not None:
        disk.base_disk_id = None
        disk.backup_type = BackupType.FULL
        session.flush()
        session.expire(disk, ["base"])
        reason = full_reason or "the changes since the last backup cannot be known"
        disk.job.warnings = [*disk.job.warnings, full_instead_warning(disk.label, reason)]
        if not _has_increments(session, job_id):
            disk.job.backup_type = BackupType.FULL
    session.flush()
    return session.scalars(
        select(BackupDisk)
        .where(BackupDisk.id == disk.id)
        .options(joinedload(BackupDisk.base))
        .execution_options(populate_existing=True)
    ).one()


def seal_disk(session: Session, disk_id: int, facts: SealedFacts, now: datetime) -> None:
    """The disk's layer is on stable storage; repeating it changes nothing.

    Raises JobEnded when its job is no longer running.
    """
    moved = rows_moved(
        session,
        update(BackupDisk)
        .where(
            BackupDisk.id == disk_id,
            BackupDisk.status == Status.RUNNING,
            BackupDisk.sealed_at.is_(None),
        )
        .values(**asdict(facts), sealed_at=now),
    )
    if moved == 1:
        return
    disk = session.scalars(select(BackupDisk).where(BackupDisk.id == disk_id)).one()
    told = (disk.qcow2_path, disk.root_digest)
    if disk.sealed_at is None or told != (facts.qcow2_path, facts.root_digest):
        raise JobEnded(disk.backup_job_id, disk.job.status)


def break_disk(session: Session, disk_id: int, error: SendenseError) -> bool:
    """The disk's upload ended without a seal. False when the row had ended before."""
    moved = rows_moved(
        session,
        update(BackupDisk)
        .where(
            BackupDisk.id == disk_id,
            BackupDisk.status == Status.RUNNING,
            BackupDisk.sealed_at.is_(None),
        )
        .values(
            status=Status.FAILED,
            error_reason=error.code[:64],
            error_message=str(error)[:MAX_TEXT_CHARS],
        ),
    )
    return bool(moved)


def _has_increments(session: Session, job_id: str) -> bool:
    count = session.scalar(
        select(func.count())
        .select_from(BackupDisk)
        .join(BackupJob)
        .where(BackupJob.id == job_id, BackupDisk.base_disk_id.is_not(None))
    )
    return bool(count)
