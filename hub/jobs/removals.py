"""Files of deleted, failed and cancelled jobs: noted in the commit that ended them, removed after it.

The catalog's note of a file goes last. Whatever stops the hub in between leaves
the note, and the next start (or the reaper) goes on with it. Each repository has
a thread of its own for it (`FolderCalls`): a mount that hangs holds up no other.
"""

import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

import structlog

from hub.catalog import file_removals as rules
from hub.catalog.file_removals import Removal
from hub.catalog.models import BackupRepository
from hub.jobs.folder_calls import FolderCall
from hub.jobs.parts import Parts
from hub.jobs.repositories import open_repository
from hub.repository import Repository
from shared.errors import SendenseError
from shared.fail_points import fail_point

# A caller hears by then what is still to be removed; the removal goes on.
BUDGET_S: Final = 20.0
_log = structlog.get_logger(__name__)


class _FilesNeeded(Exception):
    """Rows tell of the files again: they stay, and so does what they may build on."""


def files_turn(parts: Parts, job_id: str) -> AbstractContextManager[None]:
    """Nobody else removes files of the job inside. Raises CatalogUnavailable after a minute."""
    return parts.turns.turn(f"the removal of files of {job_id}")


def begin_removals(parts: Parts) -> None:
    """Have all noted files removed, and wait for nothing. Raises CatalogUnavailable."""
    with parts.catalog.read() as session:
        repositories = rules.repositories_to_clean(session)
        parts.metrics.removals_pending.set(rules.pending_count(session))
    for repository in repositories:
        _begin(parts, repository)


def remove_deleted_files(
    parts: Parts, job_ids: Collection[str] | None = None, *, budget_s: float = BUDGET_S
) -> list[str]:
    """Have noted files removed, of some jobs or of all, and wait so long at most.

    Returns the jobs of which files are left, for a reason that is logged or
    because the time was up. Raises CatalogUnavailable.
    """
    now = time.monotonic()
    with parts.catalog.read() as session:
        repositories = rules.repositories_to_clean(session, job_ids)
    for call in [_begin(parts, repository) for repository in repositories]:
        call.is_done(now + budget_s)
    with parts.catalog.read() as session:
        left = rules.pending_removals(session, job_ids)
    return list(dict.fromkeys(removal.job_id for removal in left))


def _begin(parts: Parts, repository: BackupRepository) -> FolderCall[None]:
    # One that runs may have looked before the newest notes were made.
    work = partial(_clean, parts, repository)
    return parts.folders.begin("removals", repository.path, work, again=True)


def _clean(parts: Parts, row: BackupRepository) -> None:
    """Remove what is noted of the repository until nothing new is. Raises nothing."""
    try:
        repository = open_repository(row)
        tried: set[int] = set()
        held: set[str] = set()
        while new := _pending(parts, row, tried):
            for removal in new:
                tried.add(removal.removal_id)
                if parts.folders.closed:
                    return
                # No layer is left without its base: newer ones are noted before older ones.
                if removal.chains not in held and not _is_removed(parts, repository, removal):
                    held.add(removal.chains)
    except Exception as error:  # noqa: BLE001 - the reaper begins again
        _report(parts, row.id, error, repository=row.name)
    else:
        parts.told.forget(row.id)


def _pending(parts: Parts, row: BackupRepository, tried: Collection[int]) -> list[Removal]:
    with parts.catalog.read() as session:
        parts.metrics.removals_pending.set(rules.pending_count(session))
        noted = rules.pending_removals(session, repository_id=row.id)
    return [removal for removal in noted if removal.removal_id not in tried]


def _is_removed(parts: Parts, repository: Repository, removal: Removal) -> bool:
    if removal.job_id in parts.uploads.job_ids():
        # It ended a moment ago. Who waits for the upload's end has removals begun again.
        return False
    try:
        with files_turn(parts, removal.job_id):
            _remove(parts, repository, removal)
    except Exception as error:  # noqa: BLE001 - the other removals go on
        _report(parts, removal.removal_id, error, job_id=removal.job_id, path=removal.path)
        return False
    parts.told.forget(removal.removal_id)
    return True


def _remove(parts: Parts, repository: Repository, removal: Removal) -> None:
    with parts.catalog.read() as session:
        if not rules.is_pending(session, removal):
            return
        if rules.is_needed(session, removal):
            raise _FilesNeeded(f"the catalog has {removal.job_id} again")
    # While the note is there, no new job takes the id (start_job).
    if removal.is_folder:
        context_id, job_id = removal.path.split("/")
        repository.remove_job(context_id, job_id)
    else:
        repository.remove_layer_file(removal.path)
    fail_point("hub.removal.files_removed")
    _log.info("files_removed", job_id=removal.job_id, path=removal.path)
    with parts.catalog.write() as session:
        rules.removal_done(session, removal)


def _report(parts: Parts, about: int | str, error: Exception, **names: str) -> None:
    """The reaper asks every half minute: one line for each reason is enough."""
    known = isinstance(error, (SendenseError, _FilesNeeded))
    if parts.told.is_news(about, str(error) if known else repr(error)):
        _log.warning("files_not_removed", error=str(error), exc_info=not known, **names)
