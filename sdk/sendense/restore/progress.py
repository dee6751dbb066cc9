"""What a restore tells of itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sendense.clusters import CLUSTER_BYTES


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """How far a restore is. The totals are 0 while `total_known` is false."""

    job_id: str
    disk_index: int
    disk_label: str
    clusters_done: int
    cluster_count: int
    payload_done_bytes: int  # received, as stored
    payload_bytes: int
    total_known: bool = True  # false for some restore points of an earlier system

    @property
    def done_bytes(self) -> int:
        """Guest bytes restored so far, holes not counted."""
        return self.clusters_done * CLUSTER_BYTES

    @property
    def total_bytes(self) -> int:
        """Guest bytes to restore, holes not counted."""
        return self.cluster_count * CLUSTER_BYTES


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """A restored disk: the file, and the digest it was found to have.

    `root_digest` is hex and equals BackupDisk.root_digest; an `imported` restore point
    has none there, its digest is that of what the hub read.
    """

    path: Path
    format: Literal["raw", "qcow2"]
    capacity_bytes: int
    root_digest: str
    cluster_count: int  # non-zero clusters of 64 KiB
    payload_bytes: int  # received, as stored
    imported: bool  # taken over from an earlier system
