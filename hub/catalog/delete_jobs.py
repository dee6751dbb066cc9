"""Deleting jobs and contexts: rows only; the caller removes the folders after the commit."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, aliased

from hub.catalog.bases import last_completed_job
from hub.catalog.contexts import lock_context, lock_context_of
from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext
from hub.errors import JobHasDependants, JobNotEnded
from hub.jobs.states import LIVE, Status


@dataclass(frozen=True, slots=True)
class JobFolder:
    """Where a deleted job's files lie: what `Repository.remove_job` of its repository takes."""

    repository_id: str
    context_id: str
    job_id: str


def delete_job(session: Session, job_id: str, *, cascade: bool = False) -> list[JobFolder]:
    """Delete an ended job, and with `cascade` all jobs that build on it, however far.

    The folders come newest job first: removed in this order, no layer is ever
    without its base. The context stays. Raises JobNotFound, JobNotEnded,
    JobHasDependants; no row has moved then.
    """
    context_id = lock_context_of(session, job_id)
    jobs = _jobs(session, context_id)
    dependants = _dependants(session, context_id, job_id)
    doomed = [job for job in jobs if job.folder.job_id in {job_id, *dependants}]
    _require_ended([job for job in doomed if job.folder.job_id == job_id])
    if dependants and not cascade:
        oldest_first = [job.folder.job_id for job in reversed(doomed)]
        raise JobHasDependants(job_id, [one for one in oldest_first if one != job_id])
    _require_ended(doomed)
    for job in doomed:
        session.execute(
            delete(BackupJob)
            .where(BackupJob.id == job.folder.job_id)
            .execution_options(synchronize_session=False)
        )
    _refresh_last_backup(session, context_id)
    return [job.folder for job in doomed]


def delete_context(session: Session, context_id: str) -> list[JobFolder]:
    """Delete a context with all its jobs; their folders, newest job first.

    Raises ContextNotFound, JobNotEnded; no row has moved then.
    """
    lock_context(session, context_id)
    jobs = _jobs(session, context_id)
    _require_ended(jobs)
    session.execute(
        delete(VmBackupContext)
        .where(VmBackupContext.context_id == context_id)
        .execution_options(synchronize_session=False)
    )
    return [job.folder for job in jobs]


@dataclass(frozen=True, slots=True)
class _Job:
    folder: JobFolder
    status: Status


def _jobs(session: Session, context_id: str) -> list[_Job]:
    """The context's jobs, newest first."""
    rows = session.execute(
        select(BackupJob.repository_id, BackupJob.id, BackupJob.status)
        .where(BackupJob.vm_backup_context_id == context_id)
        .order_by(BackupJob.run_number.desc())
    )
    return [_Job(JobFolder(row[0], context_id, row[1]), row[2]) for row in rows]


def _dependants(session: Session, context_id: str, job_id: str) -> set[str]:
    """Jobs with a disk that builds on the job's, or on one that does, and so on.

    Failed and cancelled ones have no layers any more: they need no base.
    """
    base = aliased(BackupDisk)
    edges = session.execute(
        select(base.backup_job_id, BackupDisk.backup_job_id)
        .join(base, BackupDisk.base_disk_id == base.id)
        .join(BackupJob, BackupJob.id == BackupDisk.backup_job_id)
        .where(
            BackupDisk.vm_backup_context_id == context_id,
            BackupJob.status.in_((*LIVE, Status.COMPLETED)),
        )
        .distinct()
    )
    built_on: dict[str, list[str]] = defaultdict(list)
    for below, above in edges:
        built_on[below].append(above)
    found: set[str] = set()
    waiting = [job_id]
    while waiting:
        new = set(built_on[waiting.pop()]) - found
        found |= new
        waiting += new
    return found


def _require_ended(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.status in LIVE:
            raise JobNotEnded(job.folder.job_id)


def _refresh_last_backup(session: Session, context_id: str) -> None:
    last = last_completed_job(session, context_id)
    session.execute(
        update(VmBackupContext)
        .where(VmBackupContext.context_id == context_id)
        .values(
            last_backup_id=None if last is None else last.id,
            last_backup_type=None if last is None else last.backup_type,
            last_backup_at=None if last is None else last.completed_at,
        )
        .execution_options(synchronize_session=False)
    )
