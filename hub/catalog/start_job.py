"""Start of a job: the parent row, committed before anything else knows of the job."""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.catalog.contexts import VmIdentity, find_or_add_context
from hub.catalog.ids import INSERT_ATTEMPTS, candidates
from hub.catalog.models import BackupJob, VmBackupContext
from hub.catalog.repositories import lock_repository
from hub.errors import BackupRunning, CatalogUnavailable
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
) -> StartedJob:
    """Insert a pending job, and the VM's context when it has none.

    Raises BackupRunning when the database refuses a second live job of the context.
    """
    # First backups of one VM that race would insert the same context: InnoDB makes
    # the losers wait with locks that both hold, and then for one another.
    lock_repository(session, repository_id)
    context = find_or_add_context(session, vm, repository_id, now)
    session.execute(
        update(VmBackupContext)
        .where(VmBackupContext.context_id == context.context_id)
        .values(total_backups_run=VmBackupContext.total_backups_run + 1)
        .execution_options(synchronize_session=False)
    )
    session.refresh(context, ["total_backups_run"])
    free_ids = (
        candidate
        for candidate in candidates("backup", vm.name, now)
        if session.get(BackupJob, candidate) is None
    )
    for job_id in islice(free_ids, INSERT_ATTEMPTS):
        job = BackupJob(
            id=job_id,
            vm_backup_context_id=context.context_id,
            repository_id=repository_id,
            run_number=context.total_backups_run,
            active_context_id=context.context_id,
            request_id=request_id or None,
            # A wish until the agent opened the job and bases were looked for.
            backup_type=requested_type or BackupType.INCREMENTAL,
            requested_type=requested_type,
            quiesce=quiesce,
            status=Status.PENDING,
            created_at=now,
        )
        try:
            with session.begin_nested():
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
        session.refresh(job, ["context"])
        return StartedJob(job, is_new=True)
    raise CatalogUnavailable("no free job id was found")
