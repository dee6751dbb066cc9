"""Completion: every disk row, the job and the context's counters in one transaction."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from hub.catalog.compare_and_set import rows_moved
from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext, WarningFacts
from hub.catalog.queries import find_job
from hub.catalog.tracking_trust import (
    distrust_tracking,
    lock_trust,
    restore_trust,
    tells_of_a_miss,
)
from hub.errors import JobEnded, ProtocolViolation
from hub.jobs.states import Event, Status, sources, target


def require_sealed(session: Session, job_id: str) -> BackupJob:
    """The job, when each of its disks is sealed or it is completed already.

    Raises JobNotFound, JobEnded, ProtocolViolation naming the disks that are not.
    """
    job = find_job(session, job_id, with_disks=True)
    if job.status is Status.COMPLETED:
        return job
    if job.status is Status.PENDING:
        raise ProtocolViolation(f"{job_id} was reported as uploaded, but was never opened")
    if job.status not in sources(Event.ALL_DISKS_SEALED):
        raise JobEnded(job_id, job.status)
    unsealed = [d.disk_index for d in job.disks if d.sealed_at is None or d.status != "running"]
    if unsealed or len(job.disks) != job.disk_count or not job.disks:
        raise ProtocolViolation(
            f"{job_id} was reported as uploaded, but of its {job.disk_count} disks "
            f"these are not sealed: {unsealed}"
        )
    return job


def record_read(session: Session, job_id: str, now: datetime) -> bool:
    """Every disk is sealed and the snapshot stood until then. False when that was known.

    Raises JobNotFound, JobEnded, ProtocolViolation naming the disks that are not sealed.
    """
    job = require_sealed(session, job_id)
    if job.status is Status.COMPLETED or job.read_at is not None:
        return False
    job.read_at = now
    session.flush()
    return True


def complete_job(
    session: Session, job_id: str, *, warnings: Sequence[WarningFacts], now: datetime
) -> bool:
    """Make a job a restore point. False when it was one already: nothing is changed then.

    A warning of changes that tracking missed makes the VM's tracking distrusted.
    Raises JobNotFound, JobEnded, ProtocolViolation; the caller's transaction is
    then rolled back and no row has moved.
    """
    # Of two completions the second one looks when the first one has committed.
    missed = tells_of_a_miss(warnings)
    context_ids = lock_trust(session, job_id, missed=missed)
    job = require_sealed(session, job_id)
    if job.status is Status.COMPLETED:
        return False
    disks_moved = rows_moved(
        session,
        update(BackupDisk)
        .where(
            BackupDisk.backup_job_id == job_id,
            BackupDisk.status == Status.RUNNING,
            BackupDisk.sealed_at.is_not(None),
            BackupDisk.root_digest.is_not(None),
            BackupDisk.qcow2_path.is_not(None),
        )
        .values(status=Status.COMPLETED, completed_at=now),
    )
    if disks_moved != job.disk_count:
        raise ProtocolViolation(f"{disks_moved} of {job.disk_count} disks of {job_id} are sealed")
    sums = session.execute(
        select(
            func.sum(BackupDisk.bytes_planned),
            func.sum(BackupDisk.bytes_read),
            func.sum(BackupDisk.bytes_transferred),
            func.sum(BackupDisk.bytes_stored),
        ).where(BackupDisk.backup_job_id == job_id)
    ).one()
    planned, read, transferred, stored = (int(value) for value in sums)
    job_moved = rows_moved(
        session,
        update(BackupJob)
        .where(BackupJob.id == job_id, BackupJob.status.in_(sources(Event.ALL_DISKS_SEALED)))
        .values(
            status=target(Event.ALL_DISKS_SEALED),
            active_context_id=None,
            bytes_planned=planned,
            bytes_read=read,
            bytes_transferred=transferred,
            bytes_stored=stored,
            warnings=[*job.warnings, *warnings],
            completed_at=now,
        ),
    )
    if job_moved != 1:
        raise JobEnded(job_id, "ended meanwhile")
    if missed:
        distrust_tracking(session, context_ids, job_id, now)
    restore_trust(session, job)
    session.execute(
        update(VmBackupContext)
        .where(VmBackupContext.context_id == job.vm_backup_context_id)
        .values(
            successful_backups=VmBackupContext.successful_backups + 1,
            restore_point_count=VmBackupContext.restore_point_count + 1,
            bytes_stored=VmBackupContext.bytes_stored + stored,
            last_backup_id=job_id,
            last_backup_type=job.backup_type,
            last_backup_at=now,
        )
        .execution_options(synchronize_session=False)
    )
    return True
