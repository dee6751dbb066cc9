"""Completion of a job: its facts beside the layers, then one transaction."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog

from hub.catalog.complete_job import complete_job, require_sealed
from hub.catalog.models import BackupDisk, BackupJob, WarningFacts
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.end import job_over
from hub.jobs.parts import Parts
from hub.jobs.removals import files_turn
from hub.jobs.repositories import open_repository
from hub.jobs.states import Status
from shared.errors import SendenseError
from shared.fail_points import fail_point

# For a small file.
FACTS_S: Final = 10.0
REMOVAL_UNKNOWN: Final[WarningFacts] = {
    "code": "SNAPSHOT_REMOVAL_UNKNOWN",
    "message": "the agent never told whether it removed the backup's snapshot: "
    "look for a snapshot of this job at the VM",
    "disk_label": "",
}
_log = structlog.get_logger(__name__)


def complete_backup(parts: Parts, job_id: str, warnings: Sequence[WarningFacts]) -> None:
    """Make the job a restore point; one that is already stays as it is.

    Raises JobNotFound, JobEnded, ProtocolViolation when a disk is not sealed,
    and the repository's errors, also when it does not answer; no row has moved then.
    """
    job = sealed_job(parts, job_id)
    if job.status is Status.COMPLETED:
        parts.board.changed(job_id)
        return
    # A session's events wait for this one: a mount that hangs must not hold them up for long.
    write = partial(_write_facts, parts, job_id, warnings)
    parts.folders.begin(f"facts of {job_id}", job.context.repository.path, write).answer(FACTS_S)
    fail_point("hub.complete.facts_written")
    record_completion(parts, job_id, warnings)


def _write_facts(parts: Parts, job_id: str, warnings: Sequence[WarningFacts]) -> None:
    """In the folder's thread. Should the job end meanwhile, its files go after this, or it has ended."""
    with files_turn(parts, job_id):
        job = sealed_job(parts, job_id)
        if job.status is not Status.COMPLETED:
            repository = open_repository(job.context.repository)
            facts = job_facts(job, warnings)
            repository.write_job_facts(job.vm_backup_context_id, job_id, facts)


def complete_left(parts: Parts, job_id: str) -> bool:
    """Complete a job that was read. What its agent told of the rest is kept; it may be nothing.

    False when it cannot be done now, which is logged. Raises nothing.
    """
    told = parts.completions.warnings(job_id)
    try:
        complete_backup(parts, job_id, [REMOVAL_UNKNOWN] if told is None else told)
    except SendenseError as error:
        _log.warning("left_job_not_completed", job_id=job_id, error=str(error))
        return False
    except Exception:  # noqa: BLE001 - whoever asks goes on with other jobs
        _log.exception("left_job_not_completed", job_id=job_id)
        return False
    return True


def sealed_job(parts: Parts, job_id: str) -> BackupJob:
    """The job with its disks, all of them sealed. Raises JobNotFound, JobEnded, ProtocolViolation."""
    with parts.catalog.read() as session:
        return require_sealed(session, job_id)


def record_completion(parts: Parts, job_id: str, warnings: Sequence[WarningFacts]) -> None:
    """Commit that the job is a restore point; its facts are written. Raises as `sealed_job`."""
    # False also when a commit was repeated whose answer had been lost: all hear of it the same.
    _record(parts, job_id, warnings)
    fail_point("hub.complete.committed")
    job_over(parts, job_id, Status.COMPLETED)
    _log.info("job_completed", job_id=job_id)


@retry_catalog
def _record(parts: Parts, job_id: str, warnings: Sequence[WarningFacts]) -> bool:
    with parts.catalog.write() as session:
        return complete_job(session, job_id, warnings=warnings, now=parts.now())


def job_facts(job: BackupJob, warnings: Sequence[WarningFacts]) -> dict[str, object]:
    """What job.json keeps: enough to write the job's rows again (docs/formats.md)."""
    context = job.context
    return {
        "job_id": job.id,
        "context_id": context.context_id,
        "repository_id": job.repository_id,
        "run_number": job.run_number,
        "backup_type": job.backup_type.value,
        "requested_type": job.requested_type.value if job.requested_type else None,
        "consistency": job.consistency.value if job.consistency else None,
        "created_at": job.created_at.isoformat(),
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "other_snapshots": job.other_snapshots,
        "warnings": [*job.warnings, *warnings],
        "vm": {
            "name": context.vm_name,
            "moref": context.vmware_vm_id,
            "instance_uuid": context.instance_uuid,
            "site": context.site,
        },
        "disks": [_disk_facts(disk) for disk in job.disks],
    }


def _disk_facts(disk: BackupDisk) -> dict[str, object]:
    base = disk.base
    return {
        "disk_index": disk.disk_index,
        "vmware_disk_key": disk.vmware_disk_key,
        "disk_uuid": disk.disk_uuid,
        "label": disk.label,
        "capacity_bytes": disk.capacity_bytes,
        "backup_type": disk.backup_type.value,
        "base": None
        if base is None
        else {"job_id": base.backup_job_id, "disk_index": base.disk_index},
        "read_method": disk.read_method.value if disk.read_method else None,
        "read_reason": disk.read_reason,
        "sampling": {
            "clusters_sampled": disk.clusters_sampled,
            "clusters_drawn_from": disk.clusters_drawn_from,
            "undetected_clusters_bound": disk.undetected_clusters_bound,
            "clusters_missed": disk.clusters_missed,
        },
        "change_id": disk.disk_change_id,
        "qcow2_path": disk.qcow2_path,
        "root_digest": disk.root_digest,
        "bytes_planned": disk.bytes_planned,
        "bytes_read": disk.bytes_read,
        "bytes_transferred": disk.bytes_transferred,
        "bytes_stored": disk.bytes_stored,
        "bytes_unchanged": disk.bytes_unchanged,
    }
