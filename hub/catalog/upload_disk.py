"""A disk's row while its clusters arrive: upload begun, sealed, broken."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, joinedload

from hub.catalog.compare_and_set import rows_moved
from hub.catalog.models import BackupDisk, BackupJob
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
) -> BackupDisk:
    """Take the disk for an upload; a sealed one is returned as it is, to be answered again.

    `full_instead` clears the row's base before its layer exists, and warns.
    Raises JobNotFound, DiskNotFound, JobEnded, DiskNotUploadable.
    """
    disk = find_disk(session, job_id, disk_index)
    if disk.sealed_at is not None and disk.status in (Status.RUNNING, Status.COMPLETED):
        return disk
    if disk.job.status is not Status.RUNNING:
        raise JobEnded(job_id, disk.job.status)
    if disk.status is not Status.PENDING:
        raise DiskNotUploadable(job_id, disk_index, f"it is {disk.status}")
    disk.status = Status.RUNNING
    disk.bytes_planned = bytes_planned
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
    """The disk's layer is on stable storage. Raises JobEnded when its job is no longer running."""
    disk = session.scalars(select(BackupDisk).where(BackupDisk.id == disk_id)).one()
    if disk.job.status is not Status.RUNNING or disk.status is not Status.RUNNING:
        raise JobEnded(disk.backup_job_id, disk.job.status)
    disk.qcow2_path = facts.qcow2_path
    disk.root_digest = facts.root_digest
    disk.bytes_planned = facts.bytes_planned
    disk.bytes_read = facts.bytes_read
    disk.bytes_transferred = facts.bytes_transferred
    disk.bytes_stored = facts.bytes_stored
    disk.sealed_at = now


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
        .values(status=Status.FAILED, error_reason=error.code, error_message=str(error)),
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
