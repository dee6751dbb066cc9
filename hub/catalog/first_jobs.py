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
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, ScalarSelect, select, union_all
from sqlalchemy.orm import Session

from hub.catalog.job_keys import (
    BY_TIME,
    OF_ALL,
    OF_CONTEXT,
    OF_REPOSITORY,
    JobKeys,
    first_keys,
)
from hub.catalog.models import VmBackupContext
from hub.catalog.named_index import TableByIndex

# Jobs of contexts with one name that are sorted rather than merged: a few milliseconds.
SORTED_JOBS: Final = 20_000
# Contexts with one name from which on the name says little of which job is meant.
CONTEXTS_OF_A_RARE_NAME: Final = 200
# Contexts that a question can still name one by one; of more, each job is asked for the name.
CONTEXTS_TO_NAME: Final = 1000
# By how much a period grows that held too few jobs, and how often, where all jobs in it
# are looked at.
GROWTH: Final = 4
WALKS: Final = 3


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
    runs = sum(row[1] for row in found)
    if runs <= SORTED_JOBS:
        return _sorted(session, keys, rows, contexts)
    if len(contexts) <= CONTEXTS_OF_A_RARE_NAME:
        scope = [OF_CONTEXT.c.vm_backup_context_id.in_(contexts)]
        for near in _growing_periods(session, keys, rows, runs):
            job_ids = _in_ranges(session, near, rows, OF_CONTEXT, scope)
            if len(job_ids) == rows:
                return job_ids
        return _in_ranges(session, keys, rows, OF_CONTEXT, scope)
    # So many have the name that the page is full soon, unless their jobs lie elsewhere.
    of_these = len(contexts) <= CONTEXTS_TO_NAME
    named = [
        *scope,
        jobs.c.vm_backup_context_id.in_(contexts) if of_these else _name(jobs) == vm_name,
    ]
    first = _in_ranges if of_these else _merged
    for number, near in enumerate(_growing_periods(session, keys, rows, runs)):
        if number == WALKS:
            return _sorted(session, keys, rows, contexts)
        job_ids = first(session, near, rows, jobs, named)
        if len(job_ids) == rows:
            return job_ids
    return _merged(session, keys, rows, jobs, named)


def _name(jobs: TableByIndex) -> ScalarSelect[str]:
    """The name of a job's VM, asked of job after job. No join: a planner could begin that
    with the contexts."""
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
        first_keys(keys, rows, jobs, [*scope, jobs.c.status == status, jobs.c.backup_type == kind])
        for status, kind in keys.ranges()
    ]
    if len(ranges) == 1:
        return session.scalars(ranges[0]).all()
    # SQLite takes a LIMIT in a part of a UNION only inside a subquery.
    both = union_all(*(select(one.subquery()) for one in ranges)).subquery()
    ordered = select(both.c.id).order_by(*keys.ordered(both.c.created_at, both.c.id))
    return session.scalars(ordered.limit(rows)).all()


def _sorted(session: Session, keys: JobKeys, rows: int, contexts: Sequence[str]) -> Sequence[str]:
    """Of all entries of these contexts, with the status and type if one is asked for."""
    scope: list[ColumnElement[bool]] = [OF_CONTEXT.c.vm_backup_context_id.in_(contexts)]
    if keys.status is not None:
        scope.append(OF_CONTEXT.c.status == keys.status)
    if keys.backup_type is not None:
        scope.append(OF_CONTEXT.c.backup_type == keys.backup_type)
    return session.scalars(first_keys(keys, rows, OF_CONTEXT, scope)).all()


def _in_ranges(
    session: Session,
    keys: JobKeys,
    rows: int,
    jobs: TableByIndex,
    scope: Sequence[ColumnElement[bool]],
) -> Sequence[str]:
    """Of the period's entries alone: one range for each status and type, and what the index
    begins with."""
    statuses, kinds = (list(dict.fromkeys(values)) for values in zip(*keys.ranges(), strict=True))
    values = [jobs.c.status.in_(statuses), jobs.c.backup_type.in_(kinds)]
    return session.scalars(first_keys(keys, rows, jobs, [*scope, *values])).all()


def _growing_periods(session: Session, keys: JobKeys, rows: int, runs: int) -> Iterator[JobKeys]:
    """The same with the period cut short, longer every time; shorter than all there is.

    Where there are many jobs, most are not near the page. The first period is twice as
    long as the page were, if `runs` jobs were spread evenly.
    """
    oldest, newest = _span(session)
    if oldest is None or newest is None:
        return
    at = keys.after[0] if keys.after is not None else None
    if keys.newest_first:
        begin = min(t for t in (newest, keys.until, at) if t is not None)
        whole = begin - max(oldest, keys.since or oldest)
    else:
        begin = max(t for t in (oldest, keys.since, at) if t is not None)
        whole = min(newest, keys.until or newest) - begin
    length = (newest - oldest) * (2 * rows / runs)
    while timedelta(0) < length < whole:
        if keys.newest_first:
            yield replace(keys, since=begin - length)
        else:
            yield replace(keys, until=begin + length)
        length *= GROWTH


def _span(session: Session) -> tuple[datetime | None, datetime | None]:
    """Creation of the oldest and of the newest job there is."""
    created_at = BY_TIME.c.created_at
    # Not min() and max(): SQLite would read all entries for both in one query.
    ends = (select(created_at).order_by(one).limit(1) for one in (created_at, created_at.desc()))
    oldest, newest = (session.scalars(end).first() for end in ends)
    return oldest, newest
