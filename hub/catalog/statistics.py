"""What there is, and the backups of a period, counted by the database."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Float, Select, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from hub.catalog.job_keys import BY_TIME, OF_ALL, OF_REPOSITORY
from hub.catalog.models import Agent, BackupRepository, VmBackupContext
from hub.jobs.states import LIVE, BackupType, Status


@dataclass(frozen=True, slots=True)
class CatalogTotals:
    """What the catalog has now; of one repository or of all."""

    repositories: int
    contexts: int
    restore_points: int
    jobs_running: int
    bytes_stored: int


@dataclass(frozen=True, slots=True)
class DaySums:
    """Jobs created on a day, UTC; bytes and seconds are those of the completed ones."""

    day: date
    jobs: int = 0
    jobs_completed: int = 0
    jobs_failed: int = 0
    jobs_cancelled: int = 0
    jobs_full: int = 0
    bytes_read: int = 0
    bytes_transferred: int = 0
    bytes_stored: int = 0
    busy_seconds: float = 0.0

    @property
    def bytes_read_per_second(self) -> float:
        """Per busy second; 0 when nothing was busy."""
        return self.bytes_read / self.busy_seconds if self.busy_seconds > 0 else 0.0

    def plus(self, other: "DaySums") -> "DaySums":
        """Both together; the day is this one's."""
        return replace(
            self,
            jobs=self.jobs + other.jobs,
            jobs_completed=self.jobs_completed + other.jobs_completed,
            jobs_failed=self.jobs_failed + other.jobs_failed,
            jobs_cancelled=self.jobs_cancelled + other.jobs_cancelled,
            jobs_full=self.jobs_full + other.jobs_full,
            bytes_read=self.bytes_read + other.bytes_read,
            bytes_transferred=self.bytes_transferred + other.bytes_transferred,
            bytes_stored=self.bytes_stored + other.bytes_stored,
            busy_seconds=self.busy_seconds + other.busy_seconds,
        )


class milliseconds_between(FunctionElement[float]):
    """From one time to a later one."""

    type = Float()
    inherit_cache = True


@compiles(milliseconds_between)
def _on_mariadb(element: milliseconds_between, compiler: Any, **more: Any) -> str:
    return f"TIMESTAMPDIFF(MICROSECOND, {compiler.process(element.clauses, **more)}) / 1e3"


@compiles(milliseconds_between, "sqlite")
def _on_sqlite(element: milliseconds_between, compiler: Any, **more: Any) -> str:
    begin, end = (compiler.process(clause, **more) for clause in element.clauses)
    return f"(julianday({end}) - julianday({begin})) * 86400e3"


def catalog_totals(session: Session, repository_id: str = "") -> CatalogTotals:
    """Counted from the contexts' counters; "" is all repositories."""
    places = select(func.count()).select_from(BackupRepository)
    contexts = select(
        func.count(),
        func.coalesce(func.sum(VmBackupContext.restore_point_count), 0),
        func.coalesce(func.sum(VmBackupContext.bytes_stored), 0),
    ).select_from(VmBackupContext)
    jobs = OF_REPOSITORY if repository_id else OF_ALL
    running = select(func.count()).select_from(jobs).where(jobs.c.status.in_(LIVE))
    if repository_id:
        places = places.where(BackupRepository.id == repository_id)
        contexts = contexts.where(VmBackupContext.repository_id == repository_id)
        running = running.where(jobs.c.repository_id == repository_id)
    count, points, stored = session.execute(contexts).one()
    return CatalogTotals(
        repositories=session.scalars(places).one(),
        contexts=count,
        restore_points=int(points),
        jobs_running=session.scalars(running).one(),
        bytes_stored=int(stored),
    )


def agent_sites(session: Session) -> Sequence[str]:
    """Sites whose agent has registered."""
    return session.scalars(select(Agent.site)).all()


def day_sums(session: Session, *, first: date, days: int, repository_id: str = "") -> list[DaySums]:
    """One for each of `days` days from `first` on, also for those without a job.

    Busy time is counted to the millisecond.
    """
    found = {first + timedelta(days=n): DaySums(first + timedelta(days=n)) for n in range(days)}
    for group in _groups(session, _sums(first, days, repository_id)):
        found[group.day] = found[group.day].plus(group)
    return list(found.values())


def in_all(days: Sequence[DaySums]) -> DaySums:
    """The sums over a period of at least one day; its day is the first one."""
    total = DaySums(days[0].day)
    for one in days:
        total = total.plus(one)
    return total


def _sums(first: date, days: int, repository_id: str) -> Select[*tuple[Any, ...]]:
    """Out of an index that has all columns: one pass over the entries of the period."""
    job = BY_TIME.c
    begin = datetime.combine(first, time(), UTC)
    # Both engines write a time as year-month-day first.
    day = func.substr(job.created_at, 1, 10)
    query = (
        select(
            day,
            job.status,
            job.backup_type,
            func.count(),
            func.sum(job.bytes_read),
            func.sum(job.bytes_transferred),
            func.sum(job.bytes_stored),
            func.sum(milliseconds_between(job.started_at, job.completed_at)),
        )
        .where(job.created_at >= begin, job.created_at < begin + timedelta(days=days))
        .group_by(day, job.status, job.backup_type)
    )
    return query.where(job.repository_id == repository_id) if repository_id else query


def _groups(session: Session, query: Select[*tuple[Any, ...]]) -> Iterator[DaySums]:
    """The jobs of a day, a status and a type."""
    for text, status, kind, jobs, read, transferred, stored, busy_ms in session.execute(query):
        group = DaySums(
            date.fromisoformat(str(text)),
            jobs=jobs,
            jobs_failed=jobs if status is Status.FAILED else 0,
            jobs_cancelled=jobs if status is Status.CANCELLED else 0,
        )
        if status is Status.COMPLETED:
            group = replace(
                group,
                jobs_completed=jobs,
                jobs_full=jobs if kind is BackupType.FULL else 0,
                bytes_read=int(read),
                bytes_transferred=int(transferred),
                bytes_stored=int(stored),
                # Imported jobs may not know when they started.
                busy_seconds=float(busy_ms or 0) / 1e3,
            )
        yield group
