"""Files of deleted, failed and cancelled jobs: noted with the job's end, struck out when gone."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from hub.catalog.models import BackupDisk, BackupJob, BackupRepository, FileRemoval
from hub.jobs.states import Status


@dataclass(frozen=True, slots=True)
class Removal:
    """A folder or file to remove; `is_folder`: a job's folder with all in it."""

    removal_id: int
    repository: BackupRepository
    job_id: str
    path: str  # relative to the repository

    @property
    def is_folder(self) -> bool:
        return self.path.count("/") == 1 and self.path.endswith(f"/{self.job_id}")

    @property
    def chains(self) -> str:
        """What the files' layers may be a base of lies in removals that say the same here.

        That is the context. "" for all imported layers: their places tell nothing.
        """
        return self.path.split("/")[0] if self.is_folder else ""


def request_removals(
    session: Session, repository_id: str, paths: Iterable[tuple[str, str]], now: datetime
) -> None:
    """Note (job id, path) of what is to be removed once this transaction is committed, in order."""
    for job_id, path in paths:
        session.add(
            FileRemoval(repository_id=repository_id, job_id=job_id, path=path, requested_at=now)
        )
        session.flush()


def pending_removals(
    session: Session, job_ids: Collection[str] | None = None, *, repository_id: str = ""
) -> list[Removal]:
    """What is still to be removed, in the order in which it was noted.

    Of some jobs or of all; of one repository or of all.
    """
    query = select(FileRemoval, BackupRepository).join(
        BackupRepository, BackupRepository.id == FileRemoval.repository_id
    )
    if job_ids is not None:
        query = query.where(FileRemoval.job_id.in_(job_ids))
    if repository_id:
        query = query.where(FileRemoval.repository_id == repository_id)
    rows = session.execute(query.order_by(FileRemoval.id))
    return [Removal(row.id, repository, row.job_id, row.path) for row, repository in rows]


def repositories_to_clean(
    session: Session, job_ids: Collection[str] | None = None
) -> Sequence[BackupRepository]:
    """The repositories of `pending_removals`."""
    noted = select(FileRemoval.repository_id)
    if job_ids is not None:
        noted = noted.where(FileRemoval.job_id.in_(job_ids))
    return session.scalars(select(BackupRepository).where(BackupRepository.id.in_(noted))).all()


def is_pending(session: Session, removal: Removal) -> bool:
    """Whether the removal was not done meanwhile."""
    row = session.get(FileRemoval, removal.removal_id)
    return row is not None and (row.job_id, row.path) == (removal.job_id, removal.path)


def is_needed(session: Session, removal: Removal) -> bool:
    """Whether rows tell of the files (again): then they stay."""
    job = session.get(BackupJob, removal.job_id)
    if job is not None and job.status not in (Status.FAILED, Status.CANCELLED):
        return True
    if removal.is_folder:
        return False
    # Only imported layers have places of their own choice.
    return bool(
        session.scalar(
            select(
                exists().where(
                    BackupDisk.legacy_id.is_not(None),
                    BackupDisk.qcow2_path == removal.path,
                    BackupDisk.backup_job_id == BackupJob.id,
                    BackupJob.repository_id == removal.repository.id,
                )
            )
        )
    )


def removal_done(session: Session, removal: Removal) -> None:
    """Strike it out."""
    session.execute(
        delete(FileRemoval)
        .where(FileRemoval.id == removal.removal_id)
        .execution_options(synchronize_session=False)
    )


def has_pending_files(session: Session, job_id: str) -> bool:
    """Whether files of a job with this id are still to be removed."""
    return bool(session.scalar(select(exists().where(FileRemoval.job_id == job_id))))


def pending_count(session: Session) -> int:
    """How many removals are to be done."""
    return session.scalar(select(func.count()).select_from(FileRemoval)) or 0
