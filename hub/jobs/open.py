"""The agent opened a job: rows for its disks, a plan in return."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from hub.catalog.bases import FrozenDisk, base_candidates
from hub.catalog.models import BackupDisk, WarningFacts
from hub.catalog.open_job import open_job
from hub.catalog.queries import find_job
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.parts import Parts
from hub.jobs.repositories import layer_base, open_repository
from hub.jobs.states import BackupType, Consistency, ReadMethod, Status
from hub.repository import Repository
from shared.errors import SendenseError
from shared.fail_points import fail_point

# Another job became the last one meanwhile.
NOT_CHECKED: Final = "the layer of the last backup was not checked in time"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DiskToRead:
    """How a disk is to be read. `base_change_id` is set for CHANGED alone."""

    disk_index: int
    method: ReadMethod
    base_change_id: str = ""
    reason: str = ""


def open_backup(
    parts: Parts,
    job_id: str,
    *,
    disks: Sequence[FrozenDisk],
    snapshot: str,
    other_snapshots: Sequence[str],
    consistency: Consistency | None,
    warnings: Sequence[WarningFacts],
) -> list[DiskToRead]:
    """What each of the disks, in the order of their indexes, is read by.

    Repeating it answers as the rows are by then. Raises JobNotFound, JobEnded, NoDisks,
    ProtocolViolation, SnapshotChanged, RepositoryUnusable.
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
    def record() -> list[DiskToRead]:
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
            return [_to_read(row) for row in rows]

    plan = record()
    fail_point("hub.open.committed")
    _log.info(
        "job_opened",
        job_id=job_id,
        disks=len(plan),
        **{method.value: sum(disk.method is method for disk in plan) for method in ReadMethod},
    )
    parts.board.changed(job_id)
    return plan


def _to_read(row: BackupDisk) -> DiskToRead:
    """Of a live row: rows without a method are from before it was recorded, and ended."""
    assert row.read_method is not None
    base_change_id = ""
    if row.read_method is ReadMethod.CHANGED and row.base is not None:
        base_change_id = row.base.disk_change_id
    return DiskToRead(row.disk_index, row.read_method, base_change_id, row.read_reason or "")


def layer_problem(repository: Repository, row: BackupDisk) -> str:
    """Why no increment can be built on a completed disk's layer, or ""."""
    try:
        root_digest = repository.check_layer(layer_base(row))
    except SendenseError as error:
        return f"the last backup cannot be built on: {error}"
    if root_digest.hex() != row.root_digest:
        return f"layer {row.qcow2_path} has another root digest than the catalog"
    return ""
