"""The agent opened a job: rows for its disks, a plan in return."""

from collections.abc import Sequence
from typing import Final

import structlog

from hub.catalog.bases import FrozenDisk, base_candidates
from hub.catalog.models import BackupDisk, WarningFacts
from hub.catalog.open_job import open_job
from hub.catalog.queries import find_job
from hub.jobs.end import retry_catalog
from hub.jobs.parts import Parts
from hub.jobs.repositories import layer_base, open_repository
from hub.jobs.states import BackupType, Consistency, Status
from hub.repository import Repository
from shared.errors import SendenseError

# Another job became the last one meanwhile.
NOT_CHECKED: Final = "the layer of the last backup was not checked in time"
_log = structlog.get_logger(__name__)


def open_backup(
    parts: Parts,
    job_id: str,
    *,
    disks: Sequence[FrozenDisk],
    snapshot: str,
    other_snapshots: Sequence[str],
    consistency: Consistency | None,
    warnings: Sequence[WarningFacts],
) -> list[tuple[int, str | None]]:
    """Disk indexes, each with the change id of its base; None means full.

    Repeating it answers the same. Raises JobNotFound, JobEnded, NoDisks,
    ProtocolViolation, RepositoryUnusable.
    """
    with parts.catalog.read() as session:
        job = find_job(session, job_id)
        candidates = base_candidates(session, job.vm_backup_context_id)
    repository = open_repository(job.context.repository)
    problems: dict[int, str] = {}
    if job.status is Status.PENDING and job.requested_type is not BackupType.FULL:
        # Before the transaction: a slow file system must not hold the catalog's lock.
        keys = {disk.vmware_disk_key for disk in disks}
        problems = {
            row.id: layer_problem(repository, row)
            for row in candidates
            if row.vmware_disk_key in keys
        }

    @retry_catalog
    def record() -> list[tuple[int, str | None]]:
        """Repeated after a commit that was not answered, it finds the rows."""
        with parts.catalog.write() as session:
            rows = open_job(
                session,
                job_id,
                disks=disks,
                snapshot=snapshot,
                other_snapshots=other_snapshots,
                consistency=consistency,
                warnings=warnings,
                layer_problem=lambda row: problems.get(row.id, NOT_CHECKED),
                now=parts.now(),
            )
            return [
                (row.disk_index, None if row.base is None else row.base.disk_change_id)
                for row in rows
            ]

    plan = record()
    _log.info(
        "job_opened",
        job_id=job_id,
        disks=len(plan),
        incremental=sum(base is not None for _, base in plan),
    )
    parts.board.changed(job_id)
    return plan


def layer_problem(repository: Repository, row: BackupDisk) -> str:
    """Why no increment can be built on a completed disk's layer, or ""."""
    try:
        root_digest = repository.check_layer(layer_base(row))
    except SendenseError as error:
        return f"the last backup cannot be built on: {error}"
    if root_digest.hex() != row.root_digest:
        return f"layer {row.qcow2_path} has another root digest than the catalog"
    return ""
