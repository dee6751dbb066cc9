"""Questions to the catalog: jobs, disks and their chains."""

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from hub.catalog.models import BackupDisk, BackupJob
from hub.errors import ChainDamaged, DiskNotFound, JobNotFound, NotARestorePoint
from hub.jobs.states import BackupType, Status


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


def chain_of(session: Session, disk: BackupDisk) -> list[BackupDisk]:
    """The disk's row and those it builds on, down to its full, by foreign key.

    Raises ChainDamaged when the rows do not lead to a full of the same context.
    """
    chain = [disk]
    seen = {disk.id}
    while chain[-1].base_disk_id is not None:
        last = chain[-1]
        base = session.scalars(
            select(BackupDisk)
            .where(BackupDisk.id == last.base_disk_id)
            .options(joinedload(BackupDisk.base))
        ).first()
        if (
            base is None
            or base.id in seen
            or base.vm_backup_context_id != disk.vm_backup_context_id
            or base.status is not Status.COMPLETED
        ):
            raise ChainDamaged(last.qcow2_path or "", f"its base row {last.base_disk_id} is unfit")
        seen.add(base.id)
        chain.append(base)
    if chain[-1].backup_type is not BackupType.FULL:
        raise ChainDamaged(chain[-1].qcow2_path or "", "it is an increment without a base")
    return chain


def restorable_chain(session: Session, job_id: str, disk_index: int) -> list[BackupDisk]:
    """The chain of a restore point's disk, newest first.

    Raises JobNotFound, DiskNotFound, NotARestorePoint, ChainDamaged.
    """
    job = find_job(session, job_id)
    if job.status is not Status.COMPLETED:
        raise NotARestorePoint(job_id, job.status)
    return chain_of(session, find_disk(session, job_id, disk_index))
