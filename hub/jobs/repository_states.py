"""Repositories as an administrator sees them: row, use, and how the folder is now."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from hub.catalog import repositories as rules
from hub.catalog.models import BackupRepository
from hub.catalog.repositories import RepositoryUse
from hub.jobs.parts import Parts
from hub.repository.facts import Space
from hub.repository.probe import look
from shared.errors import SendenseError

# A file system that does not answer a look within it is told of as a problem.
LOOK_S: Final = 5.0
NOTHING: Final = RepositoryUse()


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """A repository as it is. `space` is None when the folder could not be asked, and then
    there is a `problem`."""

    row: BackupRepository
    use: RepositoryUse
    space: Space | None
    problem: str


def get_repository(parts: Parts, repository: str) -> RepositoryState:
    """By name or id. Raises RepositoryNotFound."""
    with parts.catalog.read() as session:
        row = rules.find_repository(session, repository)
    return state_of(parts, row)


def list_repositories(
    parts: Parts, *, page_size: int, page_token: str
) -> tuple[Sequence[RepositoryState], str]:
    """A page of repositories ordered by name, and the token of the next. Raises
    InvalidArgument."""
    with parts.catalog.read() as session:
        rows, next_token = rules.list_repositories(
            session, page_size=page_size, page_token=page_token
        )
    return _states(parts, rows), next_token


def state_of(parts: Parts, row: BackupRepository) -> RepositoryState:
    """A row with its use and its folder."""
    (state,) = _states(parts, [row])
    return state


def _states(parts: Parts, rows: Sequence[BackupRepository]) -> list[RepositoryState]:
    # All at once: one that hangs costs the others nothing.
    looks = [
        parts.folders.begin("look", row.path, partial(look, Path(row.path), row.id)) for row in rows
    ]
    with parts.catalog.read() as session:
        uses = rules.use_of(session, [row.id for row in rows])
    states = []
    for row, begun in zip(rows, looks, strict=True):
        space: Space | None = None
        problem = ""
        try:
            space = begun.answer(LOOK_S)
        except SendenseError as error:
            problem = str(error)
        states.append(RepositoryState(row, uses.get(row.id, NOTHING), space, problem))
    return states
