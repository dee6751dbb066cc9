"""Changes to repositories in the catalog: name, default, disabled, deletion."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.catalog.models import BackupJob, BackupRepository, FileRemoval, VmBackupContext
from hub.catalog.repositories import (
    lock_all_repositories,
    lock_repository,
    make_only_default,
    require_no_id,
)
from hub.errors import (
    RepositoryDisabled,
    RepositoryExists,
    RepositoryIsDefault,
    RepositoryNotEmpty,
    RepositoryNotFound,
)


def rename_repository(session: Session, repository_id: str, new_name: str) -> BackupRepository:
    """Raises RepositoryNotFound, RepositoryExists, InvalidArgument for another one's id."""
    row = lock_repository(session, repository_id)
    if row.name == new_name:
        return row
    taken = session.scalars(
        select(BackupRepository).where(BackupRepository.name == new_name)
    ).first()
    if taken is not None:
        raise RepositoryExists(taken.name, taken.path)
    if new_name != repository_id:
        require_no_id(session, new_name, field="new_name")
    path = row.path
    try:
        with session.begin_nested():
            row.name = new_name
            session.flush()
    except IntegrityError as error:
        # Another writer was quicker.
        raise RepositoryExists(new_name, path) from error
    return row


def set_default_repository(session: Session, repository_id: str) -> BackupRepository:
    """The one that is used when a request names none. Raises RepositoryNotFound,
    RepositoryDisabled."""
    row = _one_of(lock_all_repositories(session), repository_id)
    if row.disabled:
        raise RepositoryDisabled(row.name)
    make_only_default(session, row)
    return row


def set_disabled(session: Session, repository_id: str, disabled: bool) -> BackupRepository:
    """Let no new backup start there, or let them again. Raises RepositoryNotFound.

    A start under way is waited for, and every later one sees it.
    """
    row = lock_repository(session, repository_id)
    row.disabled = disabled
    session.flush()
    return row


def delete_repository(session: Session, repository_id: str) -> None:
    """Delete the row of a repository that holds nothing.

    A start of a backup under way is waited for; a later one finds no repository.
    Raises RepositoryNotFound, RepositoryNotEmpty, RepositoryIsDefault.
    """
    rows = lock_all_repositories(session)
    row = _one_of(rows, repository_id)
    contexts = session.scalar(
        select(func.count()).where(VmBackupContext.repository_id == repository_id)
    )
    if contexts:
        jobs = session.scalar(select(func.count()).where(BackupJob.repository_id == repository_id))
        raise RepositoryNotEmpty(
            row.name,
            contexts,
            f"with {jobs} {'job' if jobs == 1 else 'jobs'}" if jobs else "without jobs",
        )
    removals = session.scalar(
        select(func.count()).where(FileRemoval.repository_id == repository_id)
    )
    if removals:
        raise RepositoryNotEmpty(
            row.name, 0, f"files of deleted backups, {removals} in all, are still to be removed"
        )
    if row.is_default and len(rows) > 1:
        raise RepositoryIsDefault(row.name)
    session.delete(row)
    session.flush()


def jobs_with_files(session: Session, repository_id: str) -> set[str]:
    """Ids of the deleted jobs whose files are still to be removed from the repository."""
    return set(
        session.scalars(
            select(FileRemoval.job_id).where(FileRemoval.repository_id == repository_id)
        )
    )


def _one_of(rows: Sequence[BackupRepository], repository_id: str) -> BackupRepository:
    for row in rows:
        if row.id == repository_id:
            return row
    raise RepositoryNotFound(repository_id)
