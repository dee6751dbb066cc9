"""Lists of jobs, contexts and disks, page by page."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple, TypeVar

from sqlalchemy import or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload
from sqlalchemy.sql.base import ExecutableOption

from hub.catalog.contexts import find_context
from hub.catalog.first_jobs import first_jobs
from hub.catalog.job_keys import JobKeys
from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext
from hub.catalog.paging import decode_token, encode_token, page_rows
from hub.catalog.queries import find_job
from hub.catalog.repositories import find_repository
from hub.jobs.states import BackupType, Status
from shared.errors import InvalidArgument

Row = TypeVar("Row")
Key = TypeVar("Key", str, int)
Model = TypeVar("Model", BackupJob, VmBackupContext, BackupDisk)
# MariaDB makes a temporary table of a list of 1,000 keys.
KEYS_AT_ONCE: Final = 500


class _DiskKey(NamedTuple):
    run_number: int
    disk_index: int
    disk_id: int


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
        raise InvalidArgument("created_after", "must be before created_before")
    keys = JobKeys(
        newest_first=order is JobOrder.NEWEST_FIRST,
        status=status,
        backup_type=backup_type,
        since=created_after,
        until=created_before,
        after=_last_job(page_token, order),
    )
    job_ids = first_jobs(
        session,
        keys,
        rows + 1,
        vm_name=vm_name,
        context_id=context_id,
        repository_id=find_repository(session, repository).id if repository else "",
    )
    found, more = _page(job_ids, rows)
    jobs = _in_order(session, BackupJob, BackupJob.id, found)
    if not more:
        return jobs, ""
    return jobs, encode_token(order, jobs[-1].created_at.isoformat(), jobs[-1].id)


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
    name, key = VmBackupContext.vm_name, VmBackupContext.context_id
    query = select(key)
    if vm_name:
        query = query.where(name == vm_name)
    if repository:
        row = find_repository(session, repository)
        query = query.where(VmBackupContext.repository_id == row.id)
    if site:
        query = query.where(VmBackupContext.site == site)
    after = decode_token(page_token, str, str)
    if after is not None:
        query = query.where(name >= after[0], or_(name > after[0], key > after[1]))
    context_ids = session.scalars(query.order_by(name, key).limit(rows + 1)).all()
    found, more = _page(context_ids, rows)
    contexts = _in_order(session, VmBackupContext, key, found)
    return contexts, encode_token(contexts[-1].vm_name, contexts[-1].context_id) if more else ""


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
    after = decode_token(page_token, int, int)
    if job_id:
        runs = {job_id: find_job(session, job_id).run_number}
        keys = _disks_after(session, runs, after)
    else:
        find_context(session, context_id)
        keys = _newest_disks(session, context_id, after, rows + 1)
    found, more = _page(keys, rows)
    disk_ids = [key.disk_id for key in found]
    disks = _in_order(session, BackupDisk, BackupDisk.id, disk_ids, joinedload(BackupDisk.base))
    return disks, encode_token(found[-1].run_number, found[-1].disk_index) if more else ""


def _newest_disks(
    session: Session, context_id: str, after: list[int] | None, rows: int
) -> list[_DiskKey]:
    """At least the first `rows` disks of a context, if it has as many.

    Job by job, since a join of both tables may be sorted by the planner as a whole.
    Jobs without a disk are passed over, however many failed one after the other.
    """
    run = BackupJob.run_number
    newest_first = (
        select(BackupJob.id, run)
        .where(BackupJob.vm_backup_context_id == context_id)
        .order_by(run.desc())
        .limit(rows)
    )
    query = newest_first if after is None else newest_first.where(run <= after[0])
    found: list[_DiskKey] = []
    while len(found) < rows:
        runs: dict[str, int] = {row[0]: row[1] for row in session.execute(query)}
        if not runs:
            break
        found += _disks_after(session, runs, after)
        query = newest_first.where(run < min(runs.values()))
    return found


def _disks_after(
    session: Session, runs: Mapping[str, int], after: list[int] | None
) -> list[_DiskKey]:
    """The disks of these jobs (run number by id) behind a page's last one, newest job first."""
    keys = [
        _DiskKey(runs[job_id], index, disk_id)
        for part in _parts(list(runs))
        for job_id, index, disk_id in session.execute(
            select(BackupDisk.backup_job_id, BackupDisk.disk_index, BackupDisk.id).where(
                BackupDisk.backup_job_id.in_(part)
            )
        )
    ]
    if after is not None:
        last = (-after[0], after[1])
        keys = [key for key in keys if (-key.run_number, key.disk_index) > last]
    return sorted(keys, key=lambda key: (-key.run_number, key.disk_index))


def _in_order(
    session: Session,
    kind: type[Model],
    key: InstrumentedAttribute[Key],
    wanted: Sequence[Key],
    *options: ExecutableOption,
) -> list[Model]:
    """The rows with these keys, with what is loaded beside them, in the order of the keys.

    Joined by key alone: over a sorted query, a planner may join all rows and then sort.
    """
    found: dict[Key, Model] = {}
    for part in _parts(wanted):
        query = select(key, kind).where(key.in_(part)).options(*options)
        found |= {row[0]: row[1] for row in session.execute(query)}
    return [found[one] for one in wanted]


def _parts(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    for begin in range(0, len(keys), KEYS_AT_ONCE):
        yield keys[begin : begin + KEYS_AT_ONCE]


def _page(found: Sequence[Row], rows: int) -> tuple[Sequence[Row], bool]:
    return found[:rows], len(found) > rows


def _last_job(page_token: str, order: JobOrder) -> tuple[datetime, str] | None:
    """Of the page before; None for the first page. Raises InvalidArgument."""
    key = decode_token(page_token, str, str, str)
    if key is None:
        return None
    if key[0] != order:
        raise InvalidArgument("page_token", "is a token of a list in another order")
    return _time(key[1]), key[2]


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidArgument("page_token", "is not a token of this list")
