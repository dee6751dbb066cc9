"""The end of a job without success, and the wish for one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.orm import Session

from hub.catalog.compare_and_set import rows_moved
from hub.catalog.file_removals import request_removals
from hub.catalog.models import MAX_TEXT_CHARS, BackupDisk, BackupJob, VmBackupContext, WarningFacts
from hub.catalog.queries import find_job
from hub.catalog.repositories import lock_repository
from hub.catalog.tracking_trust import distrust_tracking, lock_trust, tells_of_a_miss
from hub.jobs.states import LIVE, Event, Status, sources, target


def end_job(
    session: Session,
    job_id: str,
    event: Event,
    *,
    reason: str,
    message: str,
    warnings: Sequence[WarningFacts] = (),
    with_files: bool = False,
    now: datetime,
) -> bool:
    """Move a live job and its disks to failed or cancelled.

    `event` is FAILED or CANCELLED. `with_files`: what it wrote is noted for
    removal. A warning of changes that tracking missed makes the VM's tracking
    distrusted. False when the job had ended before: only new warnings, and what follows
    from them, are recorded then.
    Raises JobNotFound.
    """
    message = message[:MAX_TEXT_CHARS]
    if with_files:
        # The note locks this row, too: in the order of all writers.
        lock_repository(session, find_job(session, job_id).repository_id)
    missed = tells_of_a_miss(warnings)
    context_ids = lock_trust(session, job_id, missed=missed)
    job = find_job(session, job_id)
    # An agent repeats what it was not seen to be answered: a warning is recorded once.
    new = [warning for warning in warnings if warning not in job.warnings]
    if new:
        session.execute(
            update(BackupJob)
            .where(BackupJob.id == job_id)
            .values(warnings=[*job.warnings, *new])
            .execution_options(synchronize_session=False)
        )
    if missed:
        distrust_tracking(session, context_ids, job_id, now)
    sums = session.execute(
        select(
            func.coalesce(func.sum(BackupDisk.bytes_planned), 0),
            func.coalesce(func.sum(BackupDisk.bytes_read), 0),
            func.coalesce(func.sum(BackupDisk.bytes_transferred), 0),
        ).where(BackupDisk.backup_job_id == job_id)
    ).one()
    planned, read, transferred = (int(value) for value in sums)
    moved = rows_moved(
        session,
        update(BackupJob)
        .where(BackupJob.id == job_id, BackupJob.status.in_(sources(event)))
        .values(
            status=target(event),
            active_context_id=None,
            error_reason=reason[:64],
            error_message=message,
            bytes_planned=planned,
            bytes_read=read,
            bytes_transferred=transferred,
            # Nothing of it can be restored.
            bytes_stored=0,
            completed_at=now,
        ),
    )
    if moved != 1:
        return False
    # A disk that failed by itself keeps its own reason.
    session.execute(
        update(BackupDisk)
        .where(BackupDisk.backup_job_id == job_id, BackupDisk.status.in_(LIVE))
        .values(status=target(event), error_reason=reason[:64], error_message=message)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(BackupDisk)
        .where(BackupDisk.backup_job_id == job_id)
        .values(qcow2_path=None, root_digest=None, sealed_at=None, bytes_stored=0)
        .execution_options(synchronize_session=False)
    )
    if event is Event.FAILED:
        session.execute(
            update(VmBackupContext)
            .where(VmBackupContext.context_id == job.vm_backup_context_id)
            .values(failed_backups=VmBackupContext.failed_backups + 1)
            .execution_options(synchronize_session=False)
        )
    if with_files:
        path = f"{job.vm_backup_context_id}/{job_id}"
        request_removals(session, job.repository_id, [(job_id, path)], now)
    return True


def request_cancel(session: Session, job_id: str, reason: str, now: datetime) -> BackupJob:
    """Note that a live job is to end; an ended one is returned as it is. Raises JobNotFound."""
    job = find_job(session, job_id)
    if job.status in LIVE and job.cancel_requested_at is None:
        job.cancel_requested_at = now
        job.cancel_reason = reason[:MAX_TEXT_CHARS]
        session.flush()
    return job


def record_progress(
    session: Session,
    job_id: str,
    disk_index: int,
    *,
    bytes_planned: int,
    bytes_read: int,
    bytes_transferred: int,
) -> None:
    """Keep how far a disk came that is not going to be sealed."""
    session.execute(
        update(BackupDisk)
        .where(
            BackupDisk.backup_job_id == job_id,
            BackupDisk.disk_index == disk_index,
            BackupDisk.completed_at.is_(None),
        )
        .values(
            bytes_planned=bytes_planned, bytes_read=bytes_read, bytes_transferred=bytes_transferred
        )
        .execution_options(synchronize_session=False)
    )


def live_job_ids(session: Session, site: str | None = None) -> Sequence[str]:
    """Jobs that have not ended, oldest first; of one site or of all."""
    wanted: list[ColumnElement[bool]] = [BackupJob.status.in_(LIVE)]
    if site is not None:
        wanted.append(VmBackupContext.site == site)
    return session.scalars(
        select(BackupJob.id)
        .join(VmBackupContext, VmBackupContext.context_id == BackupJob.vm_backup_context_id)
        .where(*wanted)
        .order_by(BackupJob.created_at, BackupJob.id)
    ).all()


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A job that has not ended."""

    job_id: str
    site: str
    status: Status
    is_sealed: bool  # every disk of it
    is_read: bool  # so it is, and its snapshot stood until then
    cancel_reason: str | None  # None: nobody wants its end


def live_jobs(session: Session, site: str | None = None) -> list[LiveJob]:
    """Jobs that have not ended, oldest first; of one site or of all."""
    wanted: list[ColumnElement[bool]] = [BackupJob.status.in_(LIVE)]
    if site is not None:
        wanted.append(VmBackupContext.site == site)
    unsealed = (
        exists()
        .where(BackupDisk.backup_job_id == BackupJob.id, BackupDisk.sealed_at.is_(None))
        .correlate(BackupJob)
    )
    rows = session.execute(
        select(
            *(BackupJob.id, VmBackupContext.site, BackupJob.status, unsealed),
            *(BackupJob.read_at, BackupJob.cancel_requested_at, BackupJob.cancel_reason),
        )
        .join(VmBackupContext, VmBackupContext.context_id == BackupJob.vm_backup_context_id)
        .where(*wanted)
        .order_by(BackupJob.created_at, BackupJob.id)
    ).all()
    return [
        LiveJob(
            job_id=job_id,
            site=of_site,
            status=status,
            is_sealed=status is Status.RUNNING and not waits,
            is_read=status is Status.RUNNING and not waits and read_at is not None,
            cancel_reason=None if cancelled_at is None else reason or "",
        )
        for job_id, of_site, status, waits, read_at, cancelled_at, reason in rows
    ]


def completed_jobs(session: Session, repository_id: str) -> set[str]:
    """Ids of the repository's restore points."""
    return _jobs_in(session, repository_id, Status.COMPLETED)


def unsuccessful_jobs(session: Session, repository_id: str) -> set[str]:
    """Ids of the repository's failed and cancelled jobs."""
    return _jobs_in(session, repository_id, Status.FAILED, Status.CANCELLED)


def live_jobs_in(session: Session, repository_id: str) -> set[str]:
    """Ids of the repository's jobs that have not ended."""
    return _jobs_in(session, repository_id, *LIVE)


def _jobs_in(session: Session, repository_id: str, *statuses: Status) -> set[str]:
    return set(
        session.scalars(
            select(BackupJob.id).where(
                BackupJob.repository_id == repository_id, BackupJob.status.in_(statuses)
            )
        )
    )
