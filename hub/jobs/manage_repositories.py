"""What an administrator does to repositories: rows first, then their folders."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from hub.catalog import change_repositories as changes
from hub.catalog.models import BackupRepository
from hub.catalog.repositories import find_repository
from hub.errors import RepositoryNotFound
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.folder_calls import CHANGE
from hub.jobs.parts import Parts
from hub.jobs.removals import remove_deleted_files
from hub.jobs.repositories import NAME, create_repository
from hub.jobs.repository_states import RepositoryState, state_of
from hub.repository.mark import remove_mark, rename_in_mark
from hub.repository.probe import CHECKS, Check, checks
from shared.errors import InvalidArgument, SendenseError

# How long a file system is waited for: to change a small file, to pass a test, to remove
# files of deleted jobs. Callers wait for an answer for half a minute in all.
CHANGE_S: Final = 5.0
TEST_S: Final = 15.0
REMOVALS_S: Final = 10.0
Change = Callable[..., BackupRepository]
_log = structlog.get_logger(__name__)


def make_repository(parts: Parts, *, name: str, path: str, default: bool) -> RepositoryState:
    """Raises what `create_repository` raises."""
    row = create_repository(parts, name=name, path=path, default=default, repeated=retry_catalog)
    return state_of(parts, row)


def rename_repository(parts: Parts, repository: str, new_name: str) -> RepositoryState:
    """Give a repository another name, in its row and then in its folder's mark.

    The row counts: a mark that cannot be written now keeps the old name. Raises
    RepositoryNotFound, RepositoryExists, InvalidArgument.
    """
    if not NAME.fullmatch(new_name):
        raise InvalidArgument(
            "new_name", "must be 1 to 64 letters, digits, dots, dashes or underscores"
        )
    found = _find(parts, repository)
    row = _changed(parts, partial(changes.rename_repository, new_name=new_name), found.id)
    _log.info("repository_renamed", repository_id=row.id, old=found.name, new=row.name)
    try:
        with parts.folders.alone(row.path):
            parts.folders.begin(
                CHANGE, row.path, partial(rename_in_mark, Path(row.path), row.id, row.name)
            ).answer(CHANGE_S)
    except SendenseError as error:
        _log.warning("mark_not_renamed", repository=row.name, error=str(error))
    return state_of(parts, row)


def set_default_repository(parts: Parts, repository: str) -> RepositoryState:
    """Raises RepositoryNotFound, RepositoryDisabled."""
    row = _changed(parts, changes.set_default_repository, _find(parts, repository).id)
    _log.info("default_repository_set", repository=row.name)
    return state_of(parts, row)


def set_disabled(parts: Parts, repository: str, disabled: bool) -> RepositoryState:
    """Let no new backup start there, or let them again. Raises RepositoryNotFound."""
    change = partial(changes.set_disabled, disabled=disabled)
    row = _changed(parts, change, _find(parts, repository).id)
    _log.info("repository_disabled" if disabled else "repository_enabled", repository=row.name)
    return state_of(parts, row)


def delete_repository(parts: Parts, repository: str) -> RepositoryState:
    """Forget a repository that holds nothing, then take the mark out of its folder; the
    repository as it was.

    A mark that cannot be removed now, or whose folder has more in it, stays, and
    `problem` says so: the folder can be made a repository again, or removed by hand.
    Raises RepositoryNotFound, RepositoryNotEmpty, RepositoryIsDefault, and
    RepositoryUnusable when another request is at work on it.
    """
    row = _find(parts, repository)
    state = state_of(parts, row)
    with parts.catalog.read() as session:
        left = changes.jobs_with_files(session, row.id)
    if left and not state.problem:
        remove_deleted_files(parts, left, budget_s=REMOVALS_S)
    # Whoever makes a repository of the folder meanwhile would lose the mark again.
    with parts.folders.alone(row.path):
        _delete(parts, row.id)
        _log.info("repository_deleted", repository=row.name, path=row.path)
        unmark = parts.folders.begin(CHANGE, row.path, partial(remove_mark, Path(row.path), row.id))
        try:
            folder_removed = unmark.answer(CHANGE_S)
        except SendenseError as error:
            _log.warning("mark_not_removed", repository=row.name, path=row.path, error=str(error))
            state = replace(state, problem=state.problem or str(error))
        else:
            _log.info("mark_removed", path=row.path, folder_removed=folder_removed)
    return state


def try_repository(parts: Parts, repository: str) -> tuple[RepositoryState, Sequence[Check]]:
    """Try the folder of a repository. Raises RepositoryNotFound.

    A file system that hangs is a failed check. While a test hangs, another one of
    the folder is not begun: it waits for the same answer.
    """
    row = _find(parts, repository)
    made: list[Check] = []

    def make() -> list[Check]:
        for check in checks(Path(row.path), row.id):
            made.append(check)
        return made

    begun = parts.folders.begin("test", row.path, make)
    try:
        found = begun.answer(TEST_S)
    except SendenseError as error:
        found = made[: len(CHECKS) - 1]
        found.append(Check(CHECKS[len(found)], False, str(error)))
    return state_of(parts, row), found


def _find(parts: Parts, repository: str) -> BackupRepository:
    if not repository:
        # "" is the default one where backups are meant, not where repositories are.
        raise InvalidArgument("repository", "name a repository")
    with parts.catalog.read() as session:
        return find_repository(session, repository)


@retry_catalog
def _changed(parts: Parts, change: Change, repository_id: str) -> BackupRepository:
    with parts.catalog.write() as session:
        return change(session, repository_id)


@retry_catalog
def _deleted(parts: Parts, repository_id: str) -> None:
    with parts.catalog.write() as session:
        changes.delete_repository(session, repository_id)


def _delete(parts: Parts, repository_id: str) -> None:
    try:
        _deleted(parts, repository_id)
    except RepositoryNotFound:
        # It was there: an attempt of ours that seemed to fail has deleted it.
        _log.info("repository_was_deleted", repository_id=repository_id)
