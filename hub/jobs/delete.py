"""Deletion of jobs and contexts: rows in one transaction, then files."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import structlog

from hub.catalog import delete_jobs as rules
from hub.catalog.delete_jobs import Deletion
from hub.catalog.imported_layers import (
    ImportedLayers,
    imported_layers_of_context,
    imported_layers_of_job,
)
from hub.errors import ContextNotFound, JobEnded, JobNotEnded, JobNotFound
from hub.jobs.catalog_attempts import catalog_attempts, retry_catalog
from hub.jobs.parts import Parts
from hub.jobs.removals import remove_deleted_files
from hub.legacy.needed import require_unneeded
from shared.errors import SendenseError

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Deleted:
    """What is gone from the catalog, newest first, and whose files are not gone yet."""

    job_ids: Sequence[str]
    bytes_stored: int
    pending_job_ids: Sequence[str]


class _UploadsOpen(Exception):
    """Uploads of an ended job have not closed their files yet."""

    def __init__(self, job_ids: Sequence[str]) -> None:
        super().__init__(*job_ids)
        self.job_ids = job_ids


def delete_backup(parts: Parts, job_id: str, *, cascade: bool) -> Deleted:
    """Delete an ended job, with `cascade` all that build on it, and then their files.

    Raises JobNotFound, JobNotEnded, JobHasDependants, RestoreRunning,
    CatalogUnavailable; of imported jobs LayerNeeded and RepositoryUnusable, too.
    Nothing is deleted then.
    """
    imported = partial(imported_layers_of_job, job_id=job_id, cascade=cascade)
    require_unneeded(parts, _imported_layers(parts, imported))
    rule = partial(rules.delete_job, job_id=job_id, cascade=cascade, now=parts.now())
    deleted = _delete(parts, rule, JobNotFound)
    _log.info("job_deleted", job_id=job_id, jobs=len(deleted.job_ids))
    return deleted


def delete_context(parts: Parts, context_id: str) -> Deleted:
    """Delete a context with all its jobs, and then their files.

    Raises ContextNotFound, JobNotEnded, RestoreRunning, CatalogUnavailable; of
    imported jobs LayerNeeded and RepositoryUnusable, too. Nothing is deleted then.
    """
    imported = partial(imported_layers_of_context, context_id=context_id)
    require_unneeded(parts, _imported_layers(parts, imported))
    rule = partial(rules.delete_context, context_id=context_id, now=parts.now())
    deleted = _delete(parts, rule, ContextNotFound)
    _log.info("context_deleted", context_id=context_id, jobs=len(deleted.job_ids))
    return deleted


@retry_catalog
def _imported_layers(parts: Parts, of_deletion: Callable[..., ImportedLayers]) -> ImportedLayers:
    with parts.catalog.read() as session:
        return of_deletion(session)


def _delete(parts: Parts, rule: Callable[..., Deletion], not_found: type[SendenseError]) -> Deleted:
    try:
        deletion = _delete_rows(parts, rule, not_found)
    except _UploadsOpen as uploads:
        # The job ended a moment ago. What is still written would outlive its rows.
        for job_id in uploads.job_ids:
            parts.uploads.abort_job(job_id, JobEnded(job_id, "it is deleted"))
        try:
            deletion = _delete_rows(parts, rule, not_found)
        except _UploadsOpen as still:
            raise JobNotEnded(still.job_ids[0]) from None
    parts.metrics.jobs_deleted.inc(len(deletion.job_ids))
    return Deleted(deletion.job_ids, deletion.bytes_stored, _remove(parts, deletion.job_ids))


def _delete_rows(
    parts: Parts, rule: Callable[..., Deletion], not_found: type[SendenseError]
) -> Deletion:
    done: Deletion | None = None
    for attempt in catalog_attempts():
        with attempt:
            try:
                # No restore begins to read what is deleted, until all can see it is.
                with ExitStack() as until_committed, parts.catalog.write() as session:
                    deletion = rule(session)
                    until_committed.enter_context(parts.reads.closed_for(deletion.job_ids))
                    uploading = parts.uploads.job_ids()
                    if still := [one for one in deletion.job_ids if one in uploading]:
                        raise _UploadsOpen(still)
                    done = deletion
            except not_found:
                # Gone, after an attempt whose commit was not answered: that one did it.
                if done is None:
                    raise
    assert done is not None
    return done


def _remove(parts: Parts, job_ids: Sequence[str]) -> Sequence[str]:
    """The jobs whose files are left for the reaper. The rows are gone: nothing fails any more."""
    try:
        left = set(remove_deleted_files(parts, job_ids))
    except SendenseError as error:
        _log.warning("deleted_files_not_removed", error=str(error))
        return job_ids
    return [job_id for job_id in job_ids if job_id in left]
