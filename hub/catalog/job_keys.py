"""What a list of jobs is asked for, and the indexes that it is found in.

Each index goes on with (status, backup_type, created_at, id) after what the jobs
belong to: within one status and type, its entries are in the order of the list.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, SQLColumnExpression, UnaryExpression, or_, select

from hub.catalog.models import BackupJob
from hub.catalog.named_index import TableByIndex
from hub.jobs.states import BackupType, Status

_TABLE = BackupJob.metadata.tables["backup_jobs"]
OF_ALL: Final = TableByIndex(_TABLE, "ix_backup_jobs_listed")
OF_REPOSITORY: Final = TableByIndex(_TABLE, "ix_backup_jobs_listed_of_repository")
OF_CONTEXT: Final = TableByIndex(_TABLE, "ix_backup_jobs_listed_of_context")
BY_TIME: Final = TableByIndex(_TABLE, "ix_backup_jobs_added_up")


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


def first_keys(
    keys: JobKeys, rows: int, jobs: TableByIndex, scope: Sequence[ColumnElement[bool]]
) -> Select[str, datetime]:
    """The list's first rows within `scope`, as the index has them."""
    return (
        select(jobs.c.id, jobs.c.created_at)
        .where(*scope, *keys.period(jobs))
        .order_by(*keys.ordered(jobs.c.created_at, jobs.c.id))
        .limit(rows)
    )
