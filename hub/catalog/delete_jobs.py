"""Deleting jobs and contexts: rows, and the note of the files to remove after the commit."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from hub.catalog.bases import last_completed_job
from hub.catalog.contexts import find_context, lock_context
from hub.catalog.doomed_jobs import (
    DoomedJob,
    doomed_jobs,
    imported_paths,
    jobs_of,
    require_ended,
)
from hub.catalog.file_removals import request_removals
from hub.catalog.models import (
    BackupJob,
    VmBackupContext,
)
from hub.catalog.queries import find_job
from hub.catalog.repositories import lock_repository
from hub.errors import (
    ContextNotFound,
    JobNotFound,
    RepositoryNotFound,
)
from hub.jobs.states import Status


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a deletion took from the catalog. Its files are in `file_removals` now."""

    job_ids: list[str]  # newest first
    bytes_stored: int  # of layers and manifests, as the rows said


def delete_job(session: Session, job_id: str, *, cascade: bool = False, now: datetime) -> Deletion:
    """Delete an ended job, and with `cascade` all jobs that build on it, however far.

    Their files are noted newest job first: removed in this order, no layer is ever
    without its base. The context stays. Raises JobNotFound, JobNotEnded,
    JobHasDependants; no row has moved then.
    """
    job = find_job(session, job_id)
    context_id = job.vm_backup_context_id
    try:
        _lock(session, job.repository_id, context_id)
    except (RepositoryNotFound, ContextNotFound) as error:
        raise JobNotFound(job_id) from error
    doomed = doomed_jobs(session, context_id, job_id, cascade=cascade)
    _request_removals(session, job.repository_id, context_id, doomed, now)
    for one in doomed:
        session.execute(
            delete(BackupJob)
            .where(BackupJob.id == one.job_id)
            .execution_options(synchronize_session=False)
        )
    _recount(session, context_id)
    return _deletion(doomed)


def delete_context(session: Session, context_id: str, *, now: datetime) -> Deletion:
    """Delete a context with all its jobs; their files are noted newest job first.

    Raises ContextNotFound, JobNotEnded; no row has moved then.
    """
    repository_id = find_context(session, context_id).repository_id
    try:
        _lock(session, repository_id, context_id)
    except RepositoryNotFound as error:
        raise ContextNotFound(context_id) from error
    jobs = jobs_of(session, context_id)
    require_ended(jobs)
    _request_removals(session, repository_id, context_id, jobs, now)
    session.execute(
        delete(VmBackupContext)
        .where(VmBackupContext.context_id == context_id)
        .execution_options(synchronize_session=False)
    )
    return _deletion(jobs)


def _lock(session: Session, repository_id: str, context_id: str) -> None:
    # The note of a file locks its repository's row, too: in the order of all writers.
    lock_repository(session, repository_id)
    lock_context(session, context_id)


def _request_removals(
    session: Session, repository_id: str, context_id: str, jobs: Sequence[DoomedJob], now: datetime
) -> None:
    layers: dict[str, list[str]] = defaultdict(list)
    for job_id, path in imported_paths(session, context_id, jobs):
        layers[job_id].append(path)

    def paths() -> Iterator[tuple[str, str]]:
        for job in jobs:
            if job.imported:
                # Its layers lie among files of the earlier system: they alone are the job's.
                yield from ((job.job_id, path) for path in layers[job.job_id])
            else:
                # Of an unsuccessful job, too: its files may not be removed yet.
                yield job.job_id, f"{context_id}/{job.job_id}"

    request_removals(session, repository_id, paths(), now)


def _deletion(jobs: Sequence[DoomedJob]) -> Deletion:
    return Deletion([job.job_id for job in jobs], sum(job.bytes_stored for job in jobs))


def _recount(session: Session, context_id: str) -> None:
    """The context tells of the restore points that are left."""
    last = last_completed_job(session, context_id)
    count, stored = session.execute(
        select(func.count(), func.coalesce(func.sum(BackupJob.bytes_stored), 0)).where(
            BackupJob.vm_backup_context_id == context_id, BackupJob.status == Status.COMPLETED
        )
    ).one()
    session.execute(
        update(VmBackupContext)
        .where(VmBackupContext.context_id == context_id)
        .values(
            restore_point_count=count,
            bytes_stored=int(stored),
            last_backup_id=None if last is None else last.id,
            last_backup_type=None if last is None else last.backup_type,
            last_backup_at=None if last is None else last.completed_at,
        )
        .execution_options(synchronize_session=False)
    )
