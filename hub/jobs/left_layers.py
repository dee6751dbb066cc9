"""The layers that the hub's last run was writing: brought to what of them is durable.

A layer that was whole, and whose row does not say so yet, is recorded. The rest is cut
to its last durable frame, and its upload goes on behind that.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from hub.catalog.models import BackupDisk, BackupJob, BackupRepository
from hub.errors import CatalogUnavailable
from hub.jobs.parts import Parts
from hub.jobs.receive_disk.rows import record_recovered_seal
from hub.jobs.recovery import LayerFound, RecoveredDisk, RecoveryReport
from hub.jobs.repositories import layer_base, layer_identity, open_repository
from hub.jobs.states import Status
from hub.repository import LayerState, RecoveredLayer
from shared.errors import SendenseError

# For all layers of a repository.
RECOVER_S: Final = 100.0
_FOUND: Final = {
    LayerState.NONE: LayerFound.NONE,
    LayerState.REOPENED: LayerFound.REOPENED,
    LayerState.SEALED: LayerFound.SEALED,
}
_log = structlog.get_logger(__name__)
# What was found, by disk row, or why it could not be looked at.
Found = dict[int, RecoveredLayer | SendenseError]


def recover_layers(
    parts: Parts, row: BackupRepository, jobs: Sequence[BackupJob], report: RecoveryReport
) -> dict[str, list[RecoveredDisk]]:
    """Look at the unsealed disks of running jobs, all of one repository.

    What cannot be looked at is a problem of the report, and nothing worse: the upload
    looks again. Raises CatalogUnavailable.
    """
    disks = {job.id: [disk for disk in job.disks if disk.sealed_at is None] for job in jobs}
    found: Found = {}
    if any(_was_begun(disk) for of_job in disks.values() for disk in of_job):
        late = threading.Event()
        for job in jobs:
            parts.recovery.look_begins(job.id)
        look = partial(_look, parts, row, jobs, found, late.is_set)
        try:
            parts.folders.begin("recover-layers", row.path, look).answer(RECOVER_S)
        except SendenseError as error:
            late.set()
            _log.error("layers_not_looked_at", repository=row.name, error=str(error))
            report.problems.append(f"layers of {row.name} were not looked at: {error}")
            found = {}  # it may still be written to
    return {
        job.id: [_recovered(parts, job, disk, found.get(disk.id), report) for disk in disks[job.id]]
        for job in jobs
    }


def _was_begun(disk: BackupDisk) -> bool:
    return disk.status is Status.RUNNING and disk.sealed_at is None


def _look(
    parts: Parts,
    row: BackupRepository,
    jobs: Sequence[BackupJob],
    found: Found,
    late: Callable[[], bool],
) -> None:
    """In the folder's thread. Once it is `late`, what was not begun is left as it is."""
    try:
        repository = open_repository(row)
        for job in jobs:
            for disk in filter(_was_begun, job.disks):
                if late():
                    return
                try:
                    found[disk.id] = repository.recover_layer(
                        layer_identity(job.context, disk),
                        layer_base(disk.base) if disk.base is not None else None,
                        change_id=disk.disk_change_id,
                    )
                except SendenseError as error:
                    found[disk.id] = error
            parts.recovery.look_ends(job.id)
    finally:
        for job in jobs:
            parts.recovery.look_ends(job.id)


def _recovered(
    parts: Parts,
    job: BackupJob,
    disk: BackupDisk,
    found: RecoveredLayer | SendenseError | None,
    report: RecoveryReport,
) -> RecoveredDisk:
    if found is None:
        return RecoveredDisk(disk.disk_index, LayerFound.NONE)
    where = f"disk {disk.disk_index} of {job.id}"
    if isinstance(found, SendenseError):
        _log.warning("layer_not_recovered", job_id=job.id, disk=disk.disk_index, error=str(found))
        report.problems.append(f"{where}: its layer was not recovered: {found}")
        return RecoveredDisk(disk.disk_index, LayerFound.NONE)
    if found.sealed is not None and found.totals is not None:
        try:
            record_recovered_seal(parts, disk, found.sealed, found.totals)
        except CatalogUnavailable:
            raise
        except SendenseError as error:
            _log.warning("seal_not_recorded", job_id=job.id, disk=disk.disk_index, error=str(error))
            report.problems.append(f"{where}: its seal was not recorded: {error}")
    return RecoveredDisk(
        disk_index=disk.disk_index,
        layer=_FOUND[found.state],
        durable_frames=found.durable.frames,
        durable_through_cluster=found.durable.last_cluster,
        durable_payload_bytes=found.durable.payload_bytes,
        journal_bytes_cut=found.journal_bytes_cut,
        layer_bytes_cut=found.layer_bytes_cut,
    )
