"""What is told of a layer: by whom it was asked for, what it builds on, what it became."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class LayerIdentity:
    """The disk of a job that a layer holds."""

    context_id: str
    job_id: str
    disk_index: int
    vm_name: str
    vmware_disk_key: int
    disk_uuid: str
    disk_label: str
    capacity_bytes: int


@dataclass(frozen=True, slots=True)
class LayerBase:
    """The layer that an increment builds on; `path` is relative to the repository."""

    path: str
    job_id: str
    disk_index: int
    change_id: str


@dataclass(frozen=True, slots=True)
class DurablePoint:
    """What is on stable storage: so many frames, through that cluster (-1: none)."""

    frames: int
    last_cluster: int


@dataclass(frozen=True, slots=True)
class DurableLayer:
    """What an unfinished layer has on stable storage; zero clusters count as clusters."""

    frames: int = 0
    last_cluster: int = -1
    clusters: int = 0
    payload_bytes: int = 0


NOTHING_DURABLE: Final = DurableLayer()


@dataclass(frozen=True, slots=True)
class SealedLayer:
    """A layer that has its final name.

    `bytes_stored` is layer plus manifest; `cluster_count` are this layer's
    clusters with data, `zero_cluster_count` those that became zero.
    """

    path: str
    root_digest: bytes
    bytes_stored: int
    cluster_count: int
    zero_cluster_count: int


@dataclass(frozen=True, slots=True)
class Space:
    """The repository's file system, in bytes."""

    total_bytes: int
    free_bytes: int
