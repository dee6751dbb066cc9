"""Which jobs a page holds, out of 1,000,000 rows as quickly as out of ten.

Three indexes serve every combination of filters: over all jobs, over those of a
repository and over those of a context, each followed by (status, backup_type,
created_at, id). A status or type that nobody asked for is not left out of the
question: it becomes one sorted range of the index for each of its values, ten at
most, and the page is merged of their first rows. So an index entry is read only when
it is on the page or would be, had another range not come first. Each question names
its index (named_index.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    Select,
    SQLColumnExpression,
    UnaryExpression,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from hub.catalog.models import BackupJob, VmBackupContext
from hub.catalog.named_index import TableByIndex
from hub.jobs.states import BackupType, Status

_TABLE = BackupJob.metadata.tables["backup_jobs"]
OF_ALL: Final = TableByIndex(_TABLE, "ix_backup_jobs_listed")
OF_REPOSITORY: Final = TableByIndex(_TABLE, "ix_backup_jobs_listed_of_repository")
OF_CONTEXT: Final = TableByIndex(_TABLE, "ix_backup_jobs_listed_of_context")
BY_TIME: Final = TableByIndex(_TABLE, "ix_backup_jobs_added_up")

# Jobs of contexts with one name that are sorted rather than merged: a few milliseconds.
SORTED_JOBS: Final = 20_000
# Contexts with one name from which on the name says little of which job is meant.
CONTEXTS_OF_A_RARE_NAME: Final = 200
# By how much a period grows that held too few jobs.
GROWTH: Final = 4


@dataclass(frozen=True, slots=True)
class JobKeys:
    """What the jobs of a list have in common, and how they are ordered.

    `since` is part of the period, `until` is not; `after` is (created_at, id) of the
    last job of the page before.
    """

    newest_first: bool
    status: Status | None = None
    backup_type: BackupType | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: tuple[datetime, str] | None = None

    def ranges(self) -> list[tuple[Status, BackupType]]:
        """The values whose ranges are merged."""
        return list(
            product(
                Status if self.status is None else [self.status],
                BackupType if self.backup_type is None else [self.backup_type],
            )
        )

    def period(self, jobs: TableByIndex) -> Iterator[ColumnElement[bool]]:
        """One bound on each side at most: of two, SQLite would take either for its range."""
        created_at = jobs.c.created_at
        at, job_id = self.after or (None, "")
        since, until = self.since, self.until
        if at is not None and self.newest_first and (until is None or at < until):
            yield created_at <= at
            yield or_(created_at < at, jobs.c.id < job_id)
            until = None
        elif at is not None and not self.newest_first and (since is None or at >= since):
            yield created_at >= at
            yield or_(created_at > at, jobs.c.id > job_id)
            since = None
        if since is not None:
            yield created_at >= since
        if until is not None:
            yield created_at < until

    def ordered(self, *columns: SQLColumnExpression[Any]) -> list[UnaryExpression[Any]]:
        """The columns as ORDER BY has them."""
        return [column.desc() if self.newest_first else column.asc() for column in columns]


def first_jobs(
    session: Session,
    keys: JobKeys,
    rows: int,
    *,
    vm_name: str = "",
    context_id: str = "",
    repository_id: str = "",
) -> Sequence[str]:
    """Ids of the list's first `rows` jobs, in its order. Empty names are any."""
    if repository_id:
        jobs, scope = OF_REPOSITORY, [OF_REPOSITORY.c.repository_id == repository_id]
    else:
        jobs, scope = OF_ALL, []
    if not vm_name and not context_id:
        return _merged(session, keys, rows, jobs, scope)
    # A context has one name and one repository: it says all.
    found = session.execute(
        select(VmBackupContext.context_id, VmBackupContext.total_backups_run).where(
            *([VmBackupContext.vm_name == vm_name] if vm_name else []),
            *([VmBackupContext.context_id == context_id] if context_id else []),
            *([VmBackupContext.repository_id == repository_id] if repository_id else []),
        )
    ).all()
    contexts = [row[0] for row in found]
    if not contexts:
        return []
    if len(contexts) == 1:
        of_context = OF_CONTEXT.c.vm_backup_context_id == contexts[0]
        return _merged(session, keys, rows, OF_CONTEXT, [of_context])
    if len(contexts) > CONTEXTS_OF_A_RARE_NAME:
        return _merged(session, keys, rows, jobs, [*scope, _name(jobs) == vm_name])
    runs = sum(row[1] for row in found)
    if runs <= SORTED_JOBS:
        return _sorted(session, keys, rows, contexts)
    return _in_growing_periods(session, keys, rows, contexts, runs)


def _name(jobs: TableByIndex) -> ScalarSelect[str]:
    """The name of a job's VM. Asked of job after job: so many have the name that the page
    is full soon. No join, which a planner could begin with the contexts."""
    return (
        select(VmBackupContext.vm_name)
        .where(VmBackupContext.context_id == jobs.c.vm_backup_context_id)
        .scalar_subquery()
    )


def _merged(
    session: Session,
    keys: JobKeys,
    rows: int,
    jobs: TableByIndex,
    scope: Sequence[ColumnElement[bool]],
) -> Sequence[str]:
    """Of one range of the index for each status and type, the first rows of all."""
    ranges = [
        _first(keys, rows, jobs, [*scope, jobs.c.status == status, jobs.c.backup_type == kind])
        for status, kind in keys.ranges()
    ]
    if len(ranges) == 1:
        return session.scalars(ranges[0]).all()
    # SQLite takes a LIMIT in a part of a UNION only inside a subquery.
    both = union_all(*(select(one.subquery()) for one in ranges)).subquery()
    ordered = select(both.c.id).order_by(*keys.ordered(both.c.created_at, both.c.id))
    return session.scalars(ordered.limit(rows)).all()


def _sorted(session: Session, keys: JobKeys, rows: int, contexts: Sequence[str]) -> Sequence[str]:
    """All jobs of these contexts that fit, sorted."""
    statuses, kinds = (dict.fromkeys(values) for values in zip(*keys.ranges(), strict=True))
    scope = [
        OF_CONTEXT.c.vm_backup_context_id.in_(contexts),
        OF_CONTEXT.c.status.in_(list(statuses)),
        OF_CONTEXT.c.backup_type.in_(list(kinds)),
    ]
    return session.scalars(_first(keys, rows, OF_CONTEXT, scope)).all()


def _in_growing_periods(
    session: Session, keys: JobKeys, rows: int, contexts: Sequence[str], runs: int
) -> Sequence[str]:
    """As `_sorted`, of a period that grows until it holds the page: with many jobs of few
    contexts, most of them are not near it."""
    oldest, newest = _span(session)
    if oldest is None or newest is None:
        return []
    at = keys.after[0] if keys.after is not None else None
    if keys.newest_first:
        begin = min(t for t in (newest, keys.until, at) if t is not None)
        whole = begin - max(oldest, keys.since or oldest)
    else:
        begin = max(t for t in (oldest, keys.since, at) if t is not None)
        whole = min(newest, keys.until or newest) - begin
    # A guess of twice what the page needs, were the jobs spread evenly.
    length = (newest - oldest) * (2 * rows / runs)
    while timedelta(0) < length < whole:
        near = (
            replace(keys, since=begin - length)
            if keys.newest_first
            else replace(keys, until=begin + length)
        )
        found = _sorted(session, near, rows, contexts)
        if len(found) == rows:
            return found
        length *= GROWTH
    return _sorted(session, keys, rows, contexts)


def _span(session: Session) -> tuple[datetime | None, datetime | None]:
    """Creation of the oldest and of the newest job there is."""
    created_at = BY_TIME.c.created_at
    # Not min() and max(): SQLite would read all entries for both in one query.
    ends = (select(created_at).order_by(one).limit(1) for one in (created_at, created_at.desc()))
    oldest, newest = (session.scalars(end).first() for end in ends)
    return oldest, newest


def _first(
    keys: JobKeys, rows: int, jobs: TableByIndex, scope: Sequence[ColumnElement[bool]]
) -> Select[str, datetime]:
    return (
        select(jobs.c.id, jobs.c.created_at)
        .where(*scope, *keys.period(jobs))
        .order_by(*keys.ordered(jobs.c.created_at, jobs.c.id))
        .limit(rows)
    )
