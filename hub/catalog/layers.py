"""The layers of completed disks, repository by repository."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalog.models import BackupDisk, BackupJob
from hub.jobs.states import Status

PAGE_ROWS: Final = 1000


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """Where a completed disk's layer lies, and how large it is with its manifest, in bytes."""

    disk_id: int
    job_id: str
    path: str  # relative to the repository
    bytes_stored: int
    is_imported: bool  # it has no manifest


def stored_layers(session: Session, repository_id: str, after_disk_id: int) -> list[StoredLayer]:
    """The next page, by row number. Rows without a path are left out: `check_rows` tells of them."""
    rows = session.execute(
        select(
            BackupDisk.id,
            BackupDisk.backup_job_id,
            BackupDisk.qcow2_path,
            BackupDisk.bytes_stored,
            BackupDisk.legacy_id,
        )
        .join(BackupJob, BackupJob.id == BackupDisk.backup_job_id)
        .where(
            BackupJob.repository_id == repository_id,
            BackupDisk.status == Status.COMPLETED,
            BackupDisk.qcow2_path.is_not(None),
            BackupDisk.id > after_disk_id,
        )
        .order_by(BackupDisk.id)
        .limit(PAGE_ROWS)
    )
    return [StoredLayer(row[0], row[1], str(row[2]), row[3], row[4] is not None) for row in rows]


def is_stored(session: Session, disk_id: int) -> bool:
    """Whether the disk's row is still there, and completed."""
    status = session.scalar(select(BackupDisk.status).where(BackupDisk.id == disk_id))
    return status is Status.COMPLETED
