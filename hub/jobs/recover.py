"""Start-up: jobs of the hub's last run go on or end; nothing else of it is left half-done."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Final

import structlog

from hub.catalog.agents import record_all_away
from hub.catalog.contexts import context_ids
from hub.catalog.end_job import completed_jobs, live_jobs_in, unsuccessful_jobs
from hub.catalog.file_removals import pending_removals
from hub.catalog.models import BackupRepository
from hub.catalog.repositories import all_repositories
from hub.jobs import dispatch
from hub.jobs.folder_calls import FolderCall
from hub.jobs.left_jobs import settle_left_jobs
from hub.jobs.parts import Parts
from hub.jobs.recovery import RecoveryReport
from hub.jobs.removals import remove_deleted_files
from hub.jobs.repositories import open_repository
from hub.repository import KnownJobs
from shared.errors import SendenseError
from shared.fail_points import fail_point

# A repository that does not answer, or a long list of deleted files, does not keep the
# hub from serving for longer: the rest is done by the reaper, or at the next start.
DELETED_FILES_S: Final = 20.0
LEFTOVERS_S: Final = 20.0
_log = structlog.get_logger(__name__)


def recover(parts: Parts) -> None:
    """Settle the jobs that a former run left, and remove unfinished files of no job.

    Call it before serving. A repository that cannot be used now is reported and
    skipped. Raises CatalogUnavailable.
    """
    report = RecoveryReport(started_at=parts.now())
    with parts.catalog.write() as session:
        record_all_away(session)
    settle_left_jobs(parts, report)
    fail_point("hub.recover.jobs_settled")
    _remove_noted(parts, report)
    _remove_leftovers(parts, report)
    fail_point("hub.recover.leftovers_removed")
    # Of the queue; their agents are away until they register.
    dispatch.hand_out(parts)
    report.finished_at = parts.now()
    parts.recovery.done(report)
    if report.jobs or report.removed_count or report.problems:
        decided = Counter(job.decision.value for job in report.jobs)
        _log.info(
            "hub_recovered",
            **decided,
            removed=report.removed_count,
            problems=report.problems,
        )


def _remove_noted(parts: Parts, report: RecoveryReport) -> None:
    """The files of jobs that were deleted, or ended without success."""
    noted = _noted(parts)
    remove_deleted_files(parts, budget_s=DELETED_FILES_S)
    left = _noted(parts)
    for repository, paths in noted.items():
        report.removed(repository, sorted(paths - left.get(repository, set())))
        if left.get(repository):
            report.problems.append(
                f"files of {repository} are still to be removed: {len(left[repository])}"
            )


def _noted(parts: Parts) -> dict[str, set[str]]:
    with parts.catalog.read() as session:
        return {
            row.name: {one.path for one in pending_removals(session, repository_id=row.id)}
            for row in all_repositories(session)
        }


def _remove_leftovers(parts: Parts, report: RecoveryReport) -> None:
    with parts.catalog.read() as session:
        rows = all_repositories(session)
        known = {
            row.id: KnownJobs(
                completed=completed_jobs(session, row.id),
                unsuccessful=unsuccessful_jobs(session, row.id),
                live=live_jobs_in(session, row.id),
                contexts=context_ids(session, row.id),
            )
            for row in rows
        }
    # Backups begin as soon as the hub serves: a sweep that is late must not see theirs.
    serving = Event()
    sweeps = [
        parts.folders.begin(
            "leftovers", row.path, partial(_sweep, row, known[row.id], serving.is_set)
        )
        for row in rows
    ]
    try:
        for row, sweep in zip(rows, sweeps, strict=True):
            _tell(row, sweep, report)
    finally:
        serving.set()


def _tell(row: BackupRepository, sweep: FolderCall[list[str]], report: RecoveryReport) -> None:
    try:
        removed = sweep.answer(LEFTOVERS_S)
    except SendenseError as error:
        _log.error("repository_unusable", repository=row.name, error=str(error))
        report.problems.append(f"repository {row.name} was not searched for leftovers: {error}")
    else:
        report.removed(row.name, removed)
        if removed:
            _log.info("leftovers_removed", repository=row.name, files=removed)


def _sweep(row: BackupRepository, known: KnownJobs, stopped: Callable[[], bool]) -> list[str]:
    return open_repository(row).remove_leftovers(known, stopped)
