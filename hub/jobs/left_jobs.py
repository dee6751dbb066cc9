"""Jobs that were live when the hub's last run ended, or when the copy of the catalog was made.

A job's facts (`job.json`) are written when all its layers are sealed, right before
the commit that makes it a restore point. Found at start-up, either that commit was
missed, or the catalog is an older copy and the job was completed since. Without facts,
the job goes on: it is queued again, or waits for its agent.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import structlog

from hub.catalog.end_job import live_job_ids
from hub.catalog.models import BackupJob, BackupRepository, WarningFacts
from hub.catalog.queries import find_job
from hub.errors import Cancelled, CatalogUnavailable, HubRestarted
from hub.jobs import dispatch
from hub.jobs.complete import job_facts, record_completion, sealed_job
from hub.jobs.end import end_rows
from hub.jobs.left_layers import recover_layers
from hub.jobs.parts import Parts
from hub.jobs.recovery import Decision, RecoveredJob, RecoveryReport
from hub.jobs.repositories import layer_base, open_repository
from hub.jobs.states import Event, Status
from hub.repository import LayerDamaged, RepositoryUnusable
from shared.errors import SendenseError

# For a small file of each job, and for the layers of one job that is to be completed.
FACTS_S: Final = 10.0
LAYERS_S: Final = 100.0
_log = structlog.get_logger(__name__)
Facts = Mapping[str, Any]


def settle_left_jobs(parts: Parts, report: RecoveryReport) -> None:
    """Decide of each live job whether it goes on, and how. No file of a job is removed.

    Raises CatalogUnavailable.
    """
    jobs: dict[str, list[BackupJob]] = defaultdict(list)
    with parts.catalog.read() as session:
        order = list(live_job_ids(session))
        for job_id in order:
            job = find_job(session, job_id, with_disks=True)
            jobs[job.repository_id].append(job)
    looks = [
        parts.folders.begin(
            "left-jobs",
            of_one[0].context.repository.path,
            partial(_facts_of, of_one[0].context.repository, of_one),
        )
        for of_one in jobs.values()
    ]
    settled: dict[str, RecoveredJob] = {}
    for of_one, look in zip(jobs.values(), looks, strict=True):
        repository = of_one[0].context.repository
        facts: dict[str, Facts] = {}
        try:
            facts = look.answer(FACTS_S)
        except SendenseError as error:
            _log.error("left_jobs_not_looked_at", jobs=[job.id for job in of_one], error=str(error))
            report.problems.append(f"jobs of {repository.name} were not looked at: {error}")
        for job in of_one:
            settled[job.id] = _settled(parts, job, facts.get(job.id), report)
        waiting = [job for job in of_one if _waits(settled[job.id])]
        disks = recover_layers(parts, repository, waiting, report)
        for job in waiting:
            one = settled[job.id]
            settled[job.id] = RecoveredJob(
                one.job_id, one.vm_name, one.decision, one.reason, tuple(disks[job.id])
            )
            # Its agent has that long to come back, whatever the looking took.
            parts.leases.begin(job.id)
    for job_id in order:
        report.jobs.append(settled[job_id])
        _tell(settled[job_id])


def _waits(job: RecoveredJob) -> bool:
    return job.decision is Decision.WAITS_FOR_AGENT


def _tell(job: RecoveredJob) -> None:
    _log.info(
        "job_recovered",
        job_id=job.job_id,
        decision=job.decision,
        reason=job.reason,
        disks=[
            f"{disk.disk_index}: {disk.layer}, {disk.durable_frames} frames" for disk in job.disks
        ],
    )


def _settled(
    parts: Parts, job: BackupJob, facts: Facts | None, report: RecoveryReport
) -> RecoveredJob:
    def decided(decision: Decision, reason: str) -> RecoveredJob:
        return RecoveredJob(job.id, job.context.vm_name, decision, reason)

    if facts is not None:
        try:
            _complete(parts, job.id, facts)
        except CatalogUnavailable:
            raise
        except RepositoryUnusable as error:
            report.problems.append(f"{job.id} cannot be completed now: {error}")
        except SendenseError as error:
            # The files are another catalog's, or damaged: nothing may be written over them.
            _log.warning("left_job_not_completed", job_id=job.id, error=str(error))
            end_rows(parts, job.id, Event.FAILED, HubRestarted())
            return decided(Decision.FAILED, f"it was written to its end, but: {error}")
        else:
            return decided(Decision.COMPLETED, "all of it was stored")
    elif job.cancel_requested_at is not None:
        end_rows(parts, job.id, Event.CANCELLED, Cancelled(job.cancel_reason or "by request"))
        return decided(Decision.CANCELLED, "somebody had asked for its end")
    if job.status is Status.PENDING:
        dispatch.queue_job(parts, job)
        return decided(Decision.QUEUED, "it had not been opened")
    dispatch.took(parts, job)
    return decided(Decision.WAITS_FOR_AGENT, "it goes on when its agent connects")


def _facts_of(row: BackupRepository, jobs: Sequence[BackupJob]) -> dict[str, Facts]:
    """What each job's `job.json` says, of those that have one."""
    repository = open_repository(row)
    found = {job.id: repository.job_facts(job.vm_backup_context_id, job.id) for job in jobs}
    return {job_id: facts for job_id, facts in found.items() if facts is not None}


def _complete(parts: Parts, job_id: str, facts: Facts) -> None:
    """Complete the job. Raises CatalogUnavailable, and why its rows or layers forbid it."""
    job = sealed_job(parts, job_id)
    warnings = _last_warnings(job, facts)
    path = job.context.repository.path
    check = partial(_check_files, job, warnings)
    parts.folders.begin("left-layers", path, check).answer(LAYERS_S)
    record_completion(parts, job_id, warnings)


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
