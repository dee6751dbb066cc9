"""Files of another system that a deletion would remove with the jobs that were imported."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalog.contexts import context_ids, find_context
from hub.catalog.doomed_jobs import DoomedJob, doomed_jobs, imported_paths, jobs_of, require_ended
from hub.catalog.models import BackupRepository, FileRemoval
from hub.catalog.queries import find_job


@dataclass(frozen=True, slots=True)
class ImportedLayers:
    """Files of another system that a deletion would remove; paths are in the repository."""

    repository: BackupRepository
    jobs: Mapping[str, str]  # by the path of their layer
    leaving: Set[str]  # their paths, and those of files of earlier deletions
    own_folders: Set[str]  # of contexts: no file of another system is in them


def imported_layers_of_job(session: Session, job_id: str, *, cascade: bool) -> ImportedLayers:
    """What `delete_job` would remove of them. Raises what that raises."""
    job = find_job(session, job_id)
    doomed = doomed_jobs(session, job.vm_backup_context_id, job_id, cascade=cascade)
    return _imported_layers(session, job.context.repository, job.vm_backup_context_id, doomed)


def imported_layers_of_context(session: Session, context_id: str) -> ImportedLayers:
    """What `delete_context` would remove of them. Raises what that raises."""
    context = find_context(session, context_id)
    jobs = jobs_of(session, context_id)
    require_ended(jobs)
    return _imported_layers(session, context.repository, context_id, jobs)


def _imported_layers(
    session: Session, repository: BackupRepository, context_id: str, jobs: Sequence[DoomedJob]
) -> ImportedLayers:
    going = {path: job_id for job_id, path in imported_paths(session, context_id, jobs)}
    if not going:
        return ImportedLayers(repository, {}, frozenset(), frozenset())
    removed = session.scalars(
        select(FileRemoval.path).where(FileRemoval.repository_id == repository.id)
    )
    return ImportedLayers(
        repository=repository,
        jobs=going,
        leaving={*going, *removed},
        own_folders=context_ids(session, repository.id),
    )
