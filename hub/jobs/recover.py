"""Start-up: nothing of the hub's last run is left pending, running, half-written or half-deleted."""

from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Final

import structlog

from hub.catalog.agents import record_all_away
from hub.catalog.contexts import context_ids
from hub.catalog.end_job import completed_jobs, unsuccessful_jobs
from hub.catalog.models import BackupRepository
from hub.catalog.repositories import all_repositories
from hub.jobs.folder_calls import FolderCall
from hub.jobs.left_jobs import settle_left_jobs
from hub.jobs.parts import Parts
from hub.jobs.removals import remove_deleted_files
from hub.jobs.repositories import open_repository
from hub.repository import KnownJobs
from shared.errors import SendenseError

# A repository that does not answer, or a long list of deleted files, does not keep the
# hub from serving for longer: the rest is done by the reaper, or at the next start.
DELETED_FILES_S: Final = 20.0
LEFTOVERS_S: Final = 20.0
_log = structlog.get_logger(__name__)


def recover(parts: Parts) -> None:
    """Complete or fail the jobs that a former run left, and remove unfinished files.

    Call it before serving. A repository that cannot be used now is reported and
    skipped. Raises CatalogUnavailable.
    """
    with parts.catalog.write() as session:
        record_all_away(session)
    settle_left_jobs(parts)
    remove_deleted_files(parts, budget_s=DELETED_FILES_S)
    _remove_leftovers(parts)


def _remove_leftovers(parts: Parts) -> None:
    with parts.catalog.read() as session:
        rows = all_repositories(session)
        known = {
            row.id: KnownJobs(
                completed=completed_jobs(session, row.id),
                unsuccessful=unsuccessful_jobs(session, row.id),
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
            _report(row, sweep)
    finally:
        serving.set()


def _report(row: BackupRepository, sweep: FolderCall[list[str]]) -> None:
    try:
        removed = sweep.answer(LEFTOVERS_S)
    except SendenseError as error:
        _log.error("repository_unusable", repository=row.name, error=str(error))
    else:
        if removed:
            _log.info("leftovers_removed", repository=row.name, files=removed)


def _sweep(row: BackupRepository, known: KnownJobs, stopped: Callable[[], bool]) -> list[str]:
    return open_repository(row).remove_leftovers(known, stopped)
