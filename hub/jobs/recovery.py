"""What the hub found when it started, and what it did about it; kept until the hub ends."""

import threading
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from hub.errors import StillRecovering

MAX_REMOVED_PATHS: Final = 1000


class Decision(StrEnum):
    """What became of a job that had not ended."""

    QUEUED = "queued"
    WAITS_FOR_AGENT = "waits_for_agent"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class LayerFound(StrEnum):
    """What was found of a disk whose upload had not ended."""

    NONE = "none"  # its upload begins
    REOPENED = "reopened"  # it goes on behind what is durable
    SEALED = "sealed"  # the layer was whole


@dataclass(frozen=True, slots=True)
class RecoveredDisk:
    """A disk whose upload had not ended, what of it is durable, and the bytes cut behind that."""

    disk_index: int
    layer: LayerFound
    durable_frames: int = 0
    durable_through_cluster: int = -1  # -1: there is none
    durable_payload_bytes: int = 0
    journal_bytes_cut: int = 0
    layer_bytes_cut: int = 0


@dataclass(frozen=True, slots=True)
class RecoveredJob:
    """A job that had not ended. `reason` is one sentence."""

    job_id: str
    vm_name: str
    decision: Decision
    reason: str
    disks: tuple[RecoveredDisk, ...] = ()


@dataclass(slots=True)
class RecoveryReport:
    """What RecoveryReport answers."""

    started_at: datetime
    finished_at: datetime | None = None
    jobs: list[RecoveredJob] = field(default_factory=list)
    removed_paths: list[str] = field(default_factory=list)
    removed_count: int = 0
    problems: list[str] = field(default_factory=list)

    def removed(self, repository: str, paths: list[str]) -> None:
        """These were removed from the repository."""
        self.removed_count += len(paths)
        room = MAX_REMOVED_PATHS - len(self.removed_paths)
        self.removed_paths += [f"{repository}: {path}" for path in paths[:room]]


class Recovery:
    """Thread-safe: the report of the start, and the jobs whose files are still to be looked at.

    A repository that hangs does not keep the hub from serving; a look at a job's layers
    that ends late must not meet an upload of the job. A job whose facts could not be read
    may be a restore point of a newer catalog: it does not go on, and its files stay.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._report: RecoveryReport | None = None
        self._looked_at: set[str] = set()
        self._unseen: frozenset[str] = frozenset()

    @property
    def report(self) -> RecoveryReport | None:
        """None before the hub has recovered. Not to be changed."""
        with self._lock:
            return self._report

    def done(self, report: RecoveryReport) -> None:
        """The hub has recovered."""
        with self._lock:
            self._report = report

    def look_begins(self, job_id: str) -> None:
        """The job's layers are nobody else's until `look_ends`."""
        with self._lock:
            self._looked_at.add(job_id)

    def look_ends(self, job_id: str) -> None:
        """The job's layers may be written."""
        with self._lock:
            self._looked_at.discard(job_id)

    @property
    def unseen(self) -> frozenset[str]:
        """The jobs of a former run of which nobody knows yet whether they were completed."""
        with self._lock:
            return self._unseen

    def not_seen(self, job_id: str) -> None:
        """Whether the job was completed could not be looked up."""
        with self._lock:
            self._unseen |= {job_id}

    def seen(self, job_id: str) -> None:
        """It was decided what becomes of the job, or it has ended."""
        with self._lock:
            self._unseen -= {job_id}

    def require_looked_at(self, job_id: str) -> None:
        """Raises StillRecovering until the start's looks at the job's files have ended."""
        with self._lock:
            if job_id in self._looked_at or job_id in self._unseen:
                raise StillRecovering(job_id)
