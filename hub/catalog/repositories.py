"""Repositories in the catalog."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePosixPath

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from hub.catalog.ids import candidates
from hub.catalog.models import ID_CHARS, BackupRepository
from hub.errors import NoDefaultRepository, RepositoryExists, RepositoryNotFound
from shared.errors import InvalidArgument


def find_repository(session: Session, repository: str) -> BackupRepository:
    """By name or id; the empty string means the default one. Raises RepositoryNotFound,
    NoDefaultRepository."""
    if not repository:
        default = session.scalars(
            select(BackupRepository).where(BackupRepository.is_default)
        ).first()
        if default is None:
            raise NoDefaultRepository()
        return default
    # A name may look like another repository's id; the name is what people type.
    found = session.scalars(
        select(BackupRepository).where(
            or_(BackupRepository.name == repository, BackupRepository.id == repository)
        )
    ).all()
    if not found:
        raise RepositoryNotFound(repository)
    return next((row for row in found if row.name == repository), found[0])


def lock_repository(session: Session, repository_id: str) -> None:
    """Hold the repository's row until the transaction ends; before any context's row."""
    query = select(BackupRepository.id).where(BackupRepository.id == repository_id)
    session.scalars(query.with_for_update()).first()


def all_repositories(session: Session) -> Sequence[BackupRepository]:
    """Ordered by name."""
    return session.scalars(select(BackupRepository).order_by(BackupRepository.name)).all()


def require_free(session: Session, *, name: str, path: str) -> None:
    """Raises RepositoryExists when the name or the folder is taken, InvalidArgument when
    the folder lies in or around another repository."""
    taken = session.scalars(
        select(BackupRepository).where(
            or_(BackupRepository.name == name, BackupRepository.path == path)
        )
    ).first()
    if taken is not None:
        raise RepositoryExists(taken.name, taken.path)
    folder = PurePosixPath(path)
    for row in all_repositories(session):
        other = PurePosixPath(row.path)
        if other in folder.parents or folder in other.parents:
            # Each would take the other's folders for its own leftovers.
            raise InvalidArgument("path", f"lies in or around the repository {row.name!r}")


def is_free_id(session: Session, repository_id: str) -> bool:
    """Whether a repository could be recorded under the id."""
    return len(repository_id) <= ID_CHARS and session.get(BackupRepository, repository_id) is None


def free_repository_id(session: Session, name: str, now: datetime) -> str:
    """An id that no repository has."""
    return next(
        candidate
        for candidate in candidates("repo", name, now)
        if session.get(BackupRepository, candidate) is None
    )


def add_repository(
    session: Session, *, repository_id: str, name: str, path: str, default: bool, now: datetime
) -> BackupRepository:
    """Record a folder that exists. The first one is the default. Raises RepositoryExists."""
    require_free(session, name=name, path=path)
    first = session.scalars(select(BackupRepository.id).limit(1)).first() is None
    if default:
        session.execute(update(BackupRepository).values(is_default=False))
    row = BackupRepository(
        id=repository_id, name=name, path=path, is_default=default or first, created_at=now
    )
    session.add(row)
    session.flush()
    return row
