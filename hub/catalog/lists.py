"""Lists of jobs, contexts and disks, page by page."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session, joinedload

from hub.catalog.contexts import find_context
from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext
from hub.catalog.paging import decode_token, encode_token, page_rows
from hub.catalog.queries import find_job
from hub.catalog.repositories import find_repository
from hub.jobs.states import BackupType, Status
from shared.errors import InvalidArgument

Row = TypeVar("Row")


class JobOrder(StrEnum):
    """How a list of jobs is ordered, by the time of their creation."""

    NEWEST_FIRST = "newest_first"
    OLDEST_FIRST = "oldest_first"


def list_jobs(
    session: Session,
    *,
    vm_name: str = "",
    context_id: str = "",
    repository: str = "",
    status: Status | None = None,
    backup_type: BackupType | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    order: JobOrder = JobOrder.NEWEST_FIRST,
    page_size: int = 0,
    page_token: str = "",
) -> tuple[Sequence[BackupJob], str]:
    """A page of jobs and the token of the next, which is good for the same order alone.

    `created_after` is part of the period, `created_before` is not. Raises
    RepositoryNotFound, InvalidArgument.
    """
    rows = page_rows(page_size)
    if created_after and created_before and created_after >= created_before:
        raise InvalidArgument("created_before", "must be later than created_after")
    query = select(BackupJob).join(BackupJob.context)
    if vm_name:
        query = query.where(VmBackupContext.vm_name == vm_name)
    if context_id:
        query = query.where(BackupJob.vm_backup_context_id == context_id)
    if repository:
        query = query.where(BackupJob.repository_id == find_repository(session, repository).id)
    if status is not None:
        query = query.where(BackupJob.status == status)
    if backup_type is not None:
        query = query.where(BackupJob.backup_type == backup_type)
    if created_after is not None:
        query = query.where(BackupJob.created_at >= created_after)
    if created_before is not None:
        query = query.where(BackupJob.created_at < created_before)
    newest_first = order is JobOrder.NEWEST_FIRST
    after = decode_token(page_token, str, str, str)
    if after is not None:
        if after[0] != order:
            raise InvalidArgument("page_token", "is a token of a list in another order")
        at, job_id = _time(after[1]), after[2]
        query = query.where(
            or_(
                BackupJob.created_at < at if newest_first else BackupJob.created_at > at,
                and_(
                    BackupJob.created_at == at,
                    BackupJob.id < job_id if newest_first else BackupJob.id > job_id,
                ),
            )
        )
    keys = (BackupJob.created_at, BackupJob.id)
    query = query.order_by(*(key.desc() if newest_first else key.asc() for key in keys))
    found, more = _page(session.scalars(query.limit(rows + 1)).all(), rows)
    if not more:
        return found, ""
    return found, encode_token(order, found[-1].created_at.isoformat(), found[-1].id)


def list_contexts(
    session: Session,
    *,
    vm_name: str = "",
    repository: str = "",
    site: str = "",
    page_size: int = 0,
    page_token: str = "",
) -> tuple[Sequence[VmBackupContext], str]:
    """A page of contexts ordered by VM name, and the token of the next. Raises
    RepositoryNotFound, InvalidArgument."""
    rows = page_rows(page_size)
    query = select(VmBackupContext)
    if vm_name:
        query = query.where(VmBackupContext.vm_name == vm_name)
    if repository:
        row = find_repository(session, repository)
        query = query.where(VmBackupContext.repository_id == row.id)
    if site:
        query = query.where(VmBackupContext.site == site)
    after = decode_token(page_token, str, str)
    if after is not None:
        query = query.where(
            or_(
                VmBackupContext.vm_name > after[0],
                and_(VmBackupContext.vm_name == after[0], VmBackupContext.context_id > after[1]),
            )
        )
    query = query.order_by(VmBackupContext.vm_name, VmBackupContext.context_id).limit(rows + 1)
    found, more = _page(session.scalars(query).all(), rows)
    return found, encode_token(found[-1].vm_name, found[-1].context_id) if more else ""


def list_disks(
    session: Session,
    *,
    context_id: str = "",
    job_id: str = "",
    page_size: int = 0,
    page_token: str = "",
) -> tuple[Sequence[BackupDisk], str]:
    """A page of the disks of a context or of a job, newest job first, and the token of the
    next. Raises ContextNotFound, JobNotFound, InvalidArgument."""
    rows = page_rows(page_size)
    if bool(context_id) == bool(job_id):
        raise InvalidArgument("context_id", "name either a context or a job")
    query = (
        select(BackupDisk)
        .join(BackupDisk.job)
        .options(joinedload(BackupDisk.job), joinedload(BackupDisk.base))
    )
    if job_id:
        find_job(session, job_id)
        query = query.where(BackupDisk.backup_job_id == job_id)
    else:
        find_context(session, context_id)
        query = query.where(BackupDisk.vm_backup_context_id == context_id)
    after = decode_token(page_token, int, int)
    if after is not None:
        query = query.where(
            or_(
                BackupJob.run_number < after[0],
                and_(BackupJob.run_number == after[0], BackupDisk.disk_index > after[1]),
            )
        )
    query = query.order_by(BackupJob.run_number.desc(), BackupDisk.disk_index).limit(rows + 1)
    found, more = _page(session.scalars(query).all(), rows)
    return found, encode_token(found[-1].job.run_number, found[-1].disk_index) if more else ""


def _page(found: Sequence[Row], rows: int) -> tuple[Sequence[Row], bool]:
    return found[:rows], len(found) > rows


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidArgument("page_token", "is not a token of this list")
