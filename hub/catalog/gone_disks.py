"""Disks of the last backup that the VM does not have any more: told, their chains stay."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalog.bases import FrozenDisk
from hub.catalog.models import BackupDisk, BackupJob, WarningFacts
from hub.jobs.states import Status


def gone_disks(
    session: Session,
    last_job: BackupJob | None,
    disks: Sequence[FrozenDisk],
    warnings: Sequence[WarningFacts],
) -> list[WarningFacts]:
    """A DISK_GONE warning for each; a disk is who its uuid and device key say.

    A disk that the agent skipped, which `warnings` tell, is there still. What an
    earlier system backed up has no uuids to tell by.
    """
    if last_job is None:
        return []
    here = {(disk.disk_uuid, disk.vmware_disk_key) for disk in disks}
    skipped = {one.get("disk_label") for one in warnings if one["code"] == "DISK_SKIPPED"}
    before = session.scalars(
        select(BackupDisk)
        .where(
            BackupDisk.backup_job_id == last_job.id,
            BackupDisk.status == Status.COMPLETED,
            BackupDisk.legacy_id.is_(None),
        )
        .order_by(BackupDisk.disk_index)
    )
    return [
        _gone_warning(row)
        for row in before
        if (row.disk_uuid, row.vmware_disk_key) not in here and row.label not in skipped
    ]


def _gone_warning(row: BackupDisk) -> WarningFacts:
    return {
        "code": "DISK_GONE",
        "message": f"{row.label} (device key {row.vmware_disk_key}) of the last backup is "
        "no disk of the VM any more; its restore points stay",
        "disk_label": row.label,
    }
