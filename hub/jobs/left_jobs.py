"""Jobs that were live when the hub's last run ended, or when the copy of the catalog was made.

A job's facts (`job.json`) are written when all its layers are sealed, right before
the commit that makes it a restore point. Found at start-up, either that commit was
missed, or the catalog is an older copy and the job was completed since. Without facts,
the job goes on: it is queued again, or waits for its agent.

A job whose facts cannot be read now waits, with its files, until the reaper can read them.
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
from hub.jobs.end import end_rows, tell_to_cancel, tell_to_let_go
from hub.jobs.folder_calls import FolderCall
from hub.jobs.left_layers import recover_layers
from hub.jobs.parts import Parts
from hub.jobs.recovery import Decision, RecoveredJob, RecoveryReport
from hub.jobs.repositories import layer_base, open_repository
from hub.jobs.resume import resume
from hub.jobs.states import Event, Status
from hub.repository import LayerDamaged, RepositoryFull, RepositoryUnusable
from shared.errors import SendenseError

# For a small file of each job, and for the layers of one job that is to be completed.
FACTS_S: Final = 10.0
LAYERS_S: Final = 100.0
_log = structlog.get_logger(__name__)
Facts = Mapping[str, Any]
Found = Facts | None | SendenseError


def settle_left_jobs(parts: Parts, report: RecoveryReport) -> None:
    """Decide of each live job whether it goes on, and how. Files are noted for removal at most.

    Raises CatalogUnavailable.
    """
    jobs: dict[str, list[BackupJob]] = defaultdict(list)
    with parts.catalog.read() as session:
        order = list(live_job_ids(session))
        for job_id in order:
            job = find_job(session, job_id, with_disks=True)
            jobs[job.repository_id].append(job)
    settled: dict[str, RecoveredJob] = {}
    for of_one, look in [(of_one, _begin_look(parts, of_one)) for of_one in jobs.values()]:
        repository = of_one[0].context.repository
        unanswered: SendenseError | None = None
        try:
            found = look.answer(FACTS_S)
        except SendenseError as error:
            unanswered = error
            _log.error("left_jobs_not_looked_at", jobs=[job.id for job in of_one], error=str(error))
            report.problems.append(f"jobs of {repository.name} wait for a look at them: {error}")
            found = dict.fromkeys((job.id for job in of_one), error)
        for job in of_one:
            facts = found[job.id]
            if isinstance(facts, SendenseError):
                if facts is not unanswered:
                    report.problems.append(f"{job.id} waits for a look at it: {facts}")
                settled[job.id] = _put_off(parts, job, facts)
            else:
                settled[job.id] = _settled(parts, job, facts, report)
        unseen = parts.recovery.unseen
        waiting = [job for job in of_one if _waits(settled[job.id]) and job.id not in unseen]
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


def look_again(parts: Parts) -> None:
    """Decide of the jobs whose facts could not be read before. Raises CatalogUnavailable."""
    jobs: dict[str, list[BackupJob]] = defaultdict(list)
    with parts.catalog.read() as session:
        live = set(live_job_ids(session))
        for job_id in sorted(parts.recovery.unseen):
            if job_id in live:
                job = find_job(session, job_id, with_disks=True)
                jobs[job.repository_id].append(job)
            else:
                parts.recovery.seen(job_id)
    for of_one, look in [(of_one, _begin_look(parts, of_one)) for of_one in jobs.values()]:
        try:
            found = look.answer(FACTS_S)
        except SendenseError as error:
            _log.info("left_jobs_not_looked_at", jobs=[job.id for job in of_one], error=str(error))
            continue
        for job in of_one:
            facts = found.get(job.id, RepositoryUnusable(job.id, "it was not looked at yet"))
            if not isinstance(facts, SendenseError):
                _settle_late(parts, job, facts)


def _settle_late(parts: Parts, job: BackupJob, facts: Facts | None) -> None:
    """Its agent may be connected by now, and may hold the job."""
    site = job.context.site
    held = parts.agents.serves(site, job.id)
    report = RecoveryReport(started_at=parts.now())  # the start's own is not changed any more
    if facts is None and job.cancel_requested_at is None and held:
        parts.recovery.seen(job.id)  # its agent goes on with it
        return
    decided = _settled(parts, job, facts, report)
    _tell(decided)
    if job.id in parts.recovery.unseen:
        return
    if decided.decision is Decision.WAITS_FOR_AGENT:
        if parts.agents.keeps_jobs(site):
            resume(parts, site, job.id)
        parts.leases.begin(job.id)
    elif decided.decision is Decision.QUEUED:
        dispatch.hand_out(parts)
    elif held:
        tell_to_cancel(parts, site, job.id, decided.reason)
    else:
        tell_to_let_go(parts, site, job.id)


def _begin_look(parts: Parts, jobs: Sequence[BackupJob]) -> FolderCall[dict[str, Found]]:
    """At jobs of one repository."""
    repository = jobs[0].context.repository
    return parts.folders.begin("left-jobs", repository.path, partial(_facts_of, repository, jobs))


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
        except (RepositoryUnusable, RepositoryFull) as error:
            report.problems.append(f"{job.id} cannot be completed now: {error}")
            return _put_off(parts, job, error)
        except SendenseError as error:
            # The files are another catalog's, or damaged: nothing may be written over them.
            _log.warning("left_job_not_completed", job_id=job.id, error=str(error))
            end_rows(parts, job.id, Event.FAILED, HubRestarted())
            parts.recovery.seen(job.id)
            return decided(Decision.FAILED, f"it was written to its end, but: {error}")
        parts.recovery.seen(job.id)
        return decided(Decision.COMPLETED, "all of it was stored")
    parts.recovery.seen(job.id)
    if job.cancel_requested_at is not None:
        why = Cancelled(job.cancel_reason or "by request")
        # Without facts it was no restore point at any time.
        end_rows(parts, job.id, Event.CANCELLED, why, with_files=True)
        return decided(Decision.CANCELLED, "somebody had asked for its end")
    if job.status is Status.PENDING:
        dispatch.queue_job(parts, job)
        return decided(Decision.QUEUED, "it had not been opened")
    dispatch.took(parts, job)
    return decided(Decision.WAITS_FOR_AGENT, "it goes on when its agent connects")


def _put_off(parts: Parts, job: BackupJob, error: SendenseError) -> RecoveredJob:
    """Nobody knows whether the job was completed: until a later look tells, nothing is done."""
    parts.recovery.not_seen(job.id)
    pending = job.status is Status.PENDING
    if not pending:
        dispatch.took(parts, job)
    decision = Decision.QUEUED if pending else Decision.WAITS_FOR_AGENT
    reason = f"it waits until its files can be looked at: {error}"
    return RecoveredJob(job.id, job.context.vm_name, decision, reason)


def _facts_of(row: BackupRepository, jobs: Sequence[BackupJob]) -> dict[str, Found]:
    """What each job's `job.json` says; None: it has none, an error: it cannot be read now."""
    repository = open_repository(row)
    found: dict[str, Found] = {}
    for job in jobs:
        try:
            found[job.id] = repository.job_facts(job.vm_backup_context_id, job.id)
        except SendenseError as error:
            found[job.id] = error
    return found


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
