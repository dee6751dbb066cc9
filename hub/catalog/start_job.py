"""Start of a job: the parent row, committed before anything else knows of the job."""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.catalog.contexts import VmIdentity, find_or_add_context, lock_context
from hub.catalog.file_removals import has_pending_files
from hub.catalog.ids import INSERT_ATTEMPTS, candidates
from hub.catalog.models import Agent, BackupJob, BackupRetry, VmBackupContext
from hub.catalog.repositories import lock_repository
from hub.errors import (
    AgentDraining,
    BackupRunning,
    CatalogUnavailable,
    JobNotFound,
    RepositoryDisabled,
)
from hub.jobs.states import BackupType, Status


@dataclass(frozen=True, slots=True)
class StartedJob:
    """The job of a request; `is_new` is False when the request was a repeated one."""

    job: BackupJob
    is_new: bool


def job_of_request(session: Session, request_id: str) -> BackupJob | None:
    """The job that a request with this id started before."""
    if not request_id:
        return None
    return session.scalars(select(BackupJob).where(BackupJob.request_id == request_id)).first()


def start_job(
    session: Session,
    *,
    vm: VmIdentity,
    repository_id: str,
    requested_type: BackupType | None,
    quiesce: bool,
    request_id: str,
    now: datetime,
    retry_of: str = "",
) -> StartedJob:
    """Insert a pending job, and the VM's context when it has none.

    `retry_of` is the job that it repeats. Raises RepositoryNotFound,
    RepositoryDisabled, AgentDraining, JobNotFound (`retry_of` is gone), and
    BackupRunning when the database refuses a second live job of the context.
    """
    # First backups of one VM that race would insert the same context: InnoDB makes
    # the losers wait with locks that both hold, and then for one another.
    repository = lock_repository(session, repository_id)
    repeated = job_of_request(session, request_id)
    if repeated is not None:
        return StartedJob(repeated, is_new=False)
    if repository.disabled:
        raise RepositoryDisabled(repository.name)
    _require_not_draining(session, vm.site)
    context = find_or_add_context(session, vm, repository_id, now)
    lock_context(session, context.context_id)
    if retry_of and session.get(BackupJob, retry_of) is None:
        raise JobNotFound(retry_of)
    free_ids = (
        candidate
        for candidate in candidates("backup", vm.name, now)
        # In this order: a deletion replaces the row by a note of its files. While they
        # may be there, a new job must not write into their folder.
        if session.get(BackupJob, candidate) is None and not has_pending_files(session, candidate)
    )
    for job_id in islice(free_ids, INSERT_ATTEMPTS):
        try:
            with session.begin_nested():
                job = BackupJob(
                    id=job_id,
                    vm_backup_context_id=context.context_id,
                    repository_id=repository_id,
                    run_number=_next_run(session, context),
                    active_context_id=context.context_id,
                    request_id=request_id or None,
                    # A wish until the agent opened the job and bases were looked for.
                    backup_type=requested_type or BackupType.INCREMENTAL,
                    requested_type=requested_type,
                    quiesce=quiesce,
                    status=Status.PENDING,
                    created_at=now,
                )
                session.add(job)
                session.flush()
        except IntegrityError as error:
            repeated = job_of_request(session, request_id)
            if repeated is not None:
                return StartedJob(repeated, is_new=False)
            running = session.scalars(
                select(BackupJob.id).where(BackupJob.active_context_id == context.context_id)
            ).first()
            if running is not None:
                raise BackupRunning(running, context.context_id) from error
            continue
        if retry_of:
            session.add(BackupRetry(job_id=job_id, retry_of_job_id=retry_of))
            session.flush()
        session.refresh(job, ["context", "retry"])
        return StartedJob(job, is_new=True)
    raise CatalogUnavailable("no free job id was found")


def _require_not_draining(session: Session, site: str) -> None:
    """Raises AgentDraining. Whoever drains the site waits until this job is there."""
    draining = session.scalars(
        select(Agent.draining).where(Agent.site == site).with_for_update(read=True)
    ).first()
    if draining:
        raise AgentDraining(site)


def _next_run(session: Session, context: VmBackupContext) -> int:
    session.execute(
        update(VmBackupContext)
        .where(VmBackupContext.context_id == context.context_id)
        .values(total_backups_run=VmBackupContext.total_backups_run + 1)
        .execution_options(synchronize_session=False)
    )
    session.refresh(context, ["total_backups_run"])
    return context.total_backups_run
