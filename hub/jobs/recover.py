"""Start-up: nothing of the hub's last run is left pending, running, half-written or half-deleted."""

from typing import Final

import structlog

from hub.catalog.agents import record_all_away
from hub.catalog.contexts import context_ids
from hub.catalog.end_job import completed_jobs, live_job_ids, unsuccessful_jobs
from hub.catalog.repositories import all_repositories
from hub.errors import HubRestarted
from hub.jobs.end import end_or_owe
from hub.jobs.parts import Parts
from hub.jobs.removals import remove_deleted_files
from hub.jobs.repositories import open_repository
from hub.jobs.states import Event
from hub.repository import Repository
from shared.errors import SendenseError

# A long list of deleted files does not keep the hub from serving: the reaper goes on.
DELETED_FILES_S: Final = 60.0
_log = structlog.get_logger(__name__)


def recover(parts: Parts) -> None:
    """Fail the jobs that a former run left and remove their files. Call it before serving.

    A repository that cannot be used now is reported and skipped.
    """
    with parts.catalog.write() as session:
        record_all_away(session)
        left = live_job_ids(session)
    for job_id in left:
        end_or_owe(parts, job_id, Event.FAILED, HubRestarted())
    remove_deleted_files(parts, budget_s=DELETED_FILES_S)
    with parts.catalog.read() as session:
        rows = all_repositories(session)
        unsuccessful = unsuccessful_jobs(session)
        completed = {row.id: completed_jobs(session, row.id) for row in rows}
        contexts = {row.id: context_ids(session, row.id) for row in rows}
    usable: dict[str, Repository] = {}
    for row in rows:
        try:
            usable[row.id] = open_repository(row)
            removed = usable[row.id].remove_partials(completed[row.id], contexts=contexts[row.id])
        except SendenseError as error:
            _log.error("repository_unusable", repository=row.name, error=str(error))
            continue
        if removed:
            _log.info("partial_files_removed", repository=row.name, files=removed)
    for repository_id, context_id, job_id in unsuccessful:
        repository = usable.get(repository_id)
        if repository is None or not (repository.path / context_id / job_id).exists():
            continue
        try:
            repository.remove_job(context_id, job_id)
        except SendenseError as error:
            _log.warning("job_files_not_removed", job_id=job_id, error=str(error))
