"""Which jobs a deletion takes: the one that is asked for, and all that build on it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from hub.catalog.models import BackupDisk, BackupJob
from hub.errors import JobHasDependants, JobNotEnded, JobNotFound
from hub.jobs.states import LIVE, Status


@dataclass(frozen=True, slots=True)
class DoomedJob:
    """What a deletion needs to know of a job."""

    job_id: str
    status: Status
    bytes_stored: int
    imported: bool


def doomed_jobs(
    session: Session, context_id: str, job_id: str, *, cascade: bool
) -> list[DoomedJob]:
    """The job, and with `cascade` what builds on it, newest first.

    Raises JobNotFound, JobNotEnded, JobHasDependants.
    """
    jobs = jobs_of(session, context_id)
    if job_id not in {one.job_id for one in jobs}:
        raise JobNotFound(job_id)  # deleted meanwhile
    dependants = _dependants(session, context_id, job_id)
    doomed = [one for one in jobs if one.job_id in {job_id, *dependants}]
    require_ended([one for one in doomed if one.job_id == job_id])
    if dependants and not cascade:
        oldest_first = [one.job_id for one in reversed(doomed)]
        raise JobHasDependants(job_id, [one for one in oldest_first if one != job_id])
    require_ended(doomed)
    return doomed


def jobs_of(session: Session, context_id: str) -> list[DoomedJob]:
    """The context's jobs, newest first."""
    rows = session.execute(
        select(BackupJob.id, BackupJob.status, BackupJob.bytes_stored, BackupJob.imported_at)
        .where(BackupJob.vm_backup_context_id == context_id)
        .order_by(BackupJob.run_number.desc())
    )
    return [DoomedJob(row[0], row[1], row[2], row[3] is not None) for row in rows]


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


def require_ended(jobs: Sequence[DoomedJob]) -> None:
    """Raises JobNotEnded."""
    for job in jobs:
        if job.status in LIVE:
            raise JobNotEnded(job.job_id)


def imported_paths(
    session: Session, context_id: str, jobs: Sequence[DoomedJob]
) -> Iterator[tuple[str, str]]:
    """(job id, path) of the layers of those jobs that were imported."""
    imported = {job.job_id for job in jobs if job.imported}
    if not imported:
        return
    for job_id, path in session.execute(
        select(BackupDisk.backup_job_id, BackupDisk.qcow2_path)
        .where(
            BackupDisk.vm_backup_context_id == context_id,
            BackupDisk.legacy_id.is_not(None),
            BackupDisk.qcow2_path.is_not(None),
        )
        .order_by(BackupDisk.disk_index)
    ):
        if job_id in imported:
            yield job_id, path or ""
