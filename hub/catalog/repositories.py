"""Repositories in the catalog: found, listed, locked, added. Changes: change_repositories.py."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.catalog.ids import candidates
from hub.catalog.models import ID_CHARS, BackupRepository, VmBackupContext
from hub.catalog.paging import decode_token, encode_token, page_rows
from hub.errors import NoDefaultRepository, RepositoryExists, RepositoryNotFound
from shared.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class RepositoryUse:
    """What is in a repository: contexts, their completed jobs, and the bytes of these."""

    contexts: int = 0
    restore_points: int = 0
    bytes_stored: int = 0


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


def lock_repository(session: Session, repository_id: str) -> BackupRepository:
    """Hold the repository's row until the transaction ends; before any context's row.

    The row as it is now. Raises RepositoryNotFound when it was deleted meanwhile.
    """
    row = session.scalars(
        select(BackupRepository)
        .where(BackupRepository.id == repository_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).first()
    if row is None:
        raise RepositoryNotFound(repository_id)
    return row


def lock_all_repositories(session: Session) -> Sequence[BackupRepository]:
    """Hold all rows, in the order of their ids; for rules that are about all of them."""
    return session.scalars(
        select(BackupRepository)
        .order_by(BackupRepository.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()


def all_repositories(session: Session) -> Sequence[BackupRepository]:
    """Ordered by name."""
    return session.scalars(select(BackupRepository).order_by(BackupRepository.name)).all()


def list_repositories(
    session: Session, *, page_size: int = 0, page_token: str = ""
) -> tuple[Sequence[BackupRepository], str]:
    """A page of repositories ordered by name, and the token of the next. Raises
    InvalidArgument."""
    rows = page_rows(page_size)
    query = select(BackupRepository)
    after = decode_token(page_token, str)
    if after is not None:
        query = query.where(BackupRepository.name > after[0])
    found = session.scalars(query.order_by(BackupRepository.name).limit(rows + 1)).all()
    return found[:rows], encode_token(found[rows - 1].name) if len(found) > rows else ""


def use_of(session: Session, repository_ids: Collection[str]) -> Mapping[str, RepositoryUse]:
    """What is in each of the repositories; those without a context are left out. One query."""
    counted = session.execute(
        select(
            VmBackupContext.repository_id,
            func.count(),
            func.sum(VmBackupContext.restore_point_count),
            func.sum(VmBackupContext.bytes_stored),
        )
        .where(VmBackupContext.repository_id.in_(repository_ids))
        .group_by(VmBackupContext.repository_id)
    )
    # MariaDB sums integers to decimals.
    return {row[0]: RepositoryUse(row[1], int(row[2]), int(row[3])) for row in counted}


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
    require_no_id(session, name, field="name")
    folder = PurePosixPath(path)
    for row in all_repositories(session):
        other = PurePosixPath(row.path)
        if other in folder.parents or folder in other.parents:
            # Each would take the other's folders for its own leftovers.
            raise InvalidArgument("path", f"lies in or around the repository {row.name!r}")


def require_no_id(session: Session, name: str, *, field: str) -> None:
    """Raises InvalidArgument when a repository has `name` as its id: whoever names that one
    by its id, to delete it for instance, would get the other."""
    other = session.get(BackupRepository, name)
    if other is not None:
        raise InvalidArgument(field, f"is the id of the repository {other.name!r}")


def is_free_id(session: Session, repository_id: str) -> bool:
    """Whether a repository could be recorded under the id."""
    return len(repository_id) <= ID_CHARS and session.get(BackupRepository, repository_id) is None


def free_repository_id(session: Session, name: str, now: datetime) -> str:
    """An id that no repository has."""
    names = set(session.scalars(select(BackupRepository.name)))
    return next(
        candidate
        for candidate in candidates("repo", name, now)
        if candidate not in names and session.get(BackupRepository, candidate) is None
    )


def add_repository(
    session: Session, *, repository_id: str, name: str, path: str, default: bool, now: datetime
) -> BackupRepository:
    """Record a folder that exists. The first one is the default. Raises RepositoryExists,
    InvalidArgument."""
    require_free(session, name=name, path=path)
    lock_all_repositories(session)
    row = BackupRepository(
        id=repository_id, name=name, path=path, is_default=False, disabled=False, created_at=now
    )
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError as error:
        # Another writer was quicker.
        raise RepositoryExists(name, path) from error
    # Asked after the insert: of two writers, one sees what the other did.
    if default or not any(other.is_default for other in lock_all_repositories(session)):
        make_only_default(session, row)
    return row


def recorded(
    session: Session, repository_id: str, *, name: str, path: str
) -> BackupRepository | None:
    """The repository of that id, if it has that name and folder."""
    row = session.get(BackupRepository, repository_id)
    return row if row is not None and (row.name, row.path) == (name, path) else None


def make_only_default(session: Session, row: BackupRepository) -> None:
    """One statement over all rows: of two that race, the later one holds."""
    session.execute(
        update(BackupRepository)
        .values(is_default=BackupRepository.id == row.id)
        .execution_options(synchronize_session=False)
    )
    session.refresh(row)
