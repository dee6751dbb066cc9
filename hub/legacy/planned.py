"""What an import will make: rows of our catalog, as far as they can be known before."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from hub.jobs.states import BackupType
from hub.legacy.old_catalog import LeftOut
from hub.legacy.places import Place


@dataclass(frozen=True, slots=True)
class PlannedDisk:
    """A disk row and its layer; `path` is relative to the repository."""

    legacy_id: str
    disk_index: int
    disk_key: int
    backup_type: BackupType
    base_legacy_id: str | None
    change_id: str
    path: str
    capacity_bytes: int
    bytes_transferred: int
    bytes_stored: int
    created_at: datetime
    completed_at: datetime
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job; `existing_id` is that of the job it was imported as before, or empty."""

    key: str
    wanted_id: str  # its id, if that is free and fit for one; or empty
    how: str
    backup_type: BackupType
    created_at: datetime
    started_at: datetime
    completed_at: datetime
    disks: tuple[PlannedDisk, ...]
    existing_id: str = ""

    @property
    def bytes_stored(self) -> int:
        return sum(disk.bytes_stored for disk in self.disks)


@dataclass(frozen=True, slots=True)
class PlannedContext:
    """A VM in a repository with its jobs in the order of their run; `existing_id` as for jobs."""

    old_id: str
    vm_name: str
    moref: str
    instance_uuid: str
    site: str
    place: Place
    created_at: datetime
    jobs: tuple[PlannedJob, ...]
    existing_id: str = ""

    @property
    def new_jobs(self) -> list[PlannedJob]:
        return [job for job in self.jobs if not job.existing_id]


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """All of it, and what is left out."""

    contexts: Sequence[PlannedContext]
    left_out: Sequence[LeftOut]

    @property
    def new_places(self) -> list[Place]:
        """Folders that become repositories, once each."""
        found = {context.place.root: context.place for context in self.contexts}
        return [place for _, place in sorted(found.items()) if place.is_new]

    @property
    def is_complete(self) -> bool:
        """Whether everything that was a restore point is one now, or would be."""
        return all(row.is_unsuccessful for row in self.left_out)
