"""Files of deleted jobs: removed after the commit that deleted their rows, or later.

The catalog's note of a file goes last. Whatever stops the hub in between leaves
the note, and the next start (or the reaper) goes on with it.
"""

import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Final

import structlog

from hub.catalog import file_removals as rules
from hub.catalog.file_removals import Removal
from hub.jobs.parts import Parts
from hub.jobs.repositories import open_repository
from shared.errors import SendenseError

# A caller hears by then what is still to be removed; the reaper goes on.
BUDGET_S: Final = 20.0
_log = structlog.get_logger(__name__)


def files_turn(parts: Parts, job_id: str) -> AbstractContextManager[None]:
    """Nobody else removes files of the job inside. Raises CatalogUnavailable after a minute."""
    return parts.turns.turn(f"the removal of files of {job_id}")


def remove_deleted_files(
    parts: Parts, job_ids: Collection[str] | None = None, *, budget_s: float = BUDGET_S
) -> list[str]:
    """Remove files of deleted jobs, in the order of their deletion; of some jobs or of all.

    Returns the jobs of which files are left, for a reason that is logged or
    because the time was up. Raises CatalogUnavailable.
    """
    with parts.catalog.read() as session:
        waiting = rules.pending_removals(session, job_ids)
    until = time.monotonic() + budget_s
    left: dict[str, None] = {}
    for removal in waiting:
        if time.monotonic() > until or not _is_removed(parts, removal):
            left[removal.job_id] = None
    with parts.catalog.read() as session:
        parts.metrics.removals_pending.set(rules.pending_count(session))
    return list(left)


def _is_removed(parts: Parts, removal: Removal) -> bool:
    try:
        with files_turn(parts, removal.job_id):
            _remove(parts, removal)
    except SendenseError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - the other removals go on
        _log.exception("deleted_files_not_removed", job_id=removal.job_id, path=removal.path)
        problem = repr(error)
    else:
        parts.told.forget(removal.removal_id)
        return True
    # The reaper asks every half minute: one line for each reason is enough.
    if parts.told.is_news(removal.removal_id, problem):
        _log.warning(
            "deleted_files_not_removed",
            job_id=removal.job_id,
            path=removal.path,
            error=problem,
        )
    return False


def _remove(parts: Parts, removal: Removal) -> None:
    with parts.catalog.read() as session:
        if not rules.is_pending(session, removal):
            return
        needed = rules.is_needed(session, removal)
    if needed:
        _log.error("deleted_files_kept", job_id=removal.job_id, path=removal.path)
    else:
        # While the note is there, no new job takes the id (start_job).
        repository = open_repository(removal.repository)
        if removal.is_folder:
            context_id, job_id = removal.path.split("/")
            repository.remove_job(context_id, job_id)
        else:
            repository.remove_layer_file(removal.path)
        _log.info("deleted_files_removed", job_id=removal.job_id, path=removal.path)
    with parts.catalog.write() as session:
        rules.removal_done(session, removal)
