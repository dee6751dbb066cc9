"""Jobs that were live when the hub's last run ended, or when the copy of the catalog was made.

A job's facts (`job.json`) are written when all its layers are sealed, right before
the commit that makes it a restore point. Found at start-up, either that commit was
missed, or the catalog is an older copy and the job was completed since.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import structlog

from hub.catalog.end_job import live_job_ids
from hub.catalog.models import BackupJob, BackupRepository, WarningFacts
from hub.catalog.queries import find_job
from hub.errors import CatalogUnavailable, HubRestarted
from hub.jobs.complete import job_facts, record_completion, sealed_job
from hub.jobs.end import end_rows
from hub.jobs.parts import Parts
from hub.jobs.repositories import layer_base, open_repository
from hub.jobs.states import Event
from hub.repository import LayerDamaged
from shared.errors import SendenseError

# For a small file of each job, and for the layers of one job that is to be completed.
FACTS_S: Final = 10.0
LAYERS_S: Final = 100.0
_log = structlog.get_logger(__name__)
Facts = Mapping[str, Any]


def settle_left_jobs(parts: Parts) -> None:
    """Complete the jobs whose facts and layers are there, fail the others. No file is removed.

    Afterwards no job is live. Raises CatalogUnavailable.
    """
    jobs: dict[str, list[BackupJob]] = defaultdict(list)
    with parts.catalog.read() as session:
        for job_id in live_job_ids(session):
            job = find_job(session, job_id)
            jobs[job.repository_id].append(job)
    looks = [
        parts.folders.begin(
            "left-jobs",
            of_one[0].context.repository.path,
            partial(_facts_of, of_one[0].context.repository, of_one),
        )
        for of_one in jobs.values()
    ]
    for of_one, look in zip(jobs.values(), looks, strict=True):
        facts: dict[str, Facts] = {}
        try:
            facts = look.answer(FACTS_S)
        except SendenseError as error:
            _log.error("left_jobs_not_looked_at", jobs=[job.id for job in of_one], error=str(error))
        for job in of_one:
            if job.id not in facts or not _is_completed(parts, job.id, facts[job.id]):
                end_rows(parts, job.id, Event.FAILED, HubRestarted())


def _facts_of(row: BackupRepository, jobs: Sequence[BackupJob]) -> dict[str, Facts]:
    """What each job's `job.json` says, of those that have one."""
    repository = open_repository(row)
    found = {job.id: repository.job_facts(job.vm_backup_context_id, job.id) for job in jobs}
    return {job_id: facts for job_id, facts in found.items() if facts is not None}


def _is_completed(parts: Parts, job_id: str, facts: Facts) -> bool:
    """Complete the job if its rows and layers allow it. Raises CatalogUnavailable."""
    try:
        job = sealed_job(parts, job_id)
        warnings = _last_warnings(job, facts)
        path = job.context.repository.path
        parts.folders.begin("left-layers", path, partial(_check_files, job, warnings)).answer(
            LAYERS_S
        )
        record_completion(parts, job_id, warnings)
    except CatalogUnavailable:
        raise
    except SendenseError as error:
        _log.warning("left_job_not_completed", job_id=job_id, error=str(error))
        return False
    return True


def _check_files(job: BackupJob, warnings: Sequence[WarningFacts]) -> None:
    """Every layer is the one of its row; the facts are written as these rows tell them.

    Raises LayerDamaged and the repository's errors.
    """
    repository = open_repository(job.context.repository)
    for disk in job.disks:
        if repository.check_layer(layer_base(disk)).hex() != disk.root_digest:
            raise LayerDamaged(disk.qcow2_path or "", "its root digest is not the catalog's")
    repository.write_job_facts(job.vm_backup_context_id, job.id, job_facts(job, warnings))


def _last_warnings(job: BackupJob, facts: Facts) -> Sequence[WarningFacts]:
    """Those that came with the completion: the facts have them after the rows'."""
    warnings = facts.get("warnings")
    if not isinstance(warnings, list) or warnings[: len(job.warnings)] != job.warnings:
        return []
    return warnings[len(job.warnings) :]
