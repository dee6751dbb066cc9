"""Questions to the catalog: jobs, their disks, and what can be restored."""

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from hub.catalog.chains import chain_of
from hub.catalog.models import BackupDisk, BackupJob
from hub.errors import DiskNotFound, JobNotFound, NotARestorePoint
from hub.jobs.states import Status


def find_job(session: Session, job_id: str, *, with_disks: bool = False) -> BackupJob:
    """The job, with its context and repository. Raises JobNotFound."""
    query = select(BackupJob).where(BackupJob.id == job_id)
    if with_disks:
        query = query.options(selectinload(BackupJob.disks).joinedload(BackupDisk.base))
    job = session.scalars(query.execution_options(populate_existing=True)).first()
    if job is None:
        raise JobNotFound(job_id)
    return job


def find_disk(session: Session, job_id: str, disk_index: int) -> BackupDisk:
    """The disk, with its job and base. Raises JobNotFound, DiskNotFound."""
    disk = session.scalars(
        select(BackupDisk)
        .where(BackupDisk.backup_job_id == job_id, BackupDisk.disk_index == disk_index)
        .options(joinedload(BackupDisk.job), joinedload(BackupDisk.base))
    ).first()
    if disk is None:
        find_job(session, job_id)
        raise DiskNotFound(job_id, disk_index)
    return disk


def restorable_chain(session: Session, job_id: str, disk_index: int) -> list[BackupDisk]:
    """The chain of a restore point's disk, newest first.

    Raises JobNotFound, DiskNotFound, NotARestorePoint, ChainDamaged.
    """
    job = find_job(session, job_id)
    if job.status is not Status.COMPLETED:
        raise NotARestorePoint(job_id, job.status)
    return chain_of(session, find_disk(session, job_id, disk_index))
