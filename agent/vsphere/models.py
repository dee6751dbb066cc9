"""What the rest of the agent sees of vSphere: plain data, nothing of pyVmomi."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Consistency = Literal["crash", "file_system"]


@dataclass(frozen=True, slots=True)
class VsphereAbout:
    """Who answers at the site's address."""

    address: str
    full_name: str
    api_type: str
    """"HostAgent" (one ESXi host) or "VirtualCenter"."""
    api_version: str


@dataclass(frozen=True, slots=True)
class VirtualDiskInfo:
    """A disk in a VM's settings."""

    key: int
    uuid: str
    label: str
    capacity_bytes: int
    disk_mode: str
    file_name: str
    not_protectable_reason: str
    """Empty when the disk can be backed up."""
    refuses_snapshots: bool = False
    """The whole VM can have no snapshot while it has this disk."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot of a VM, whoever made it."""

    name: str
    moref: str
    description: str
    created_at: datetime
    """By the host's clock."""
    quiesced: bool


@dataclass(frozen=True, slots=True)
class VirtualMachineInfo:
    """A VM as vSphere lists it; `disks` ordered by device key, parent snapshots before children."""

    name: str
    moref: str
    instance_uuid: str
    power_state: str
    change_tracking_enabled: bool
    consolidation_needed: bool
    snapshots: list[SnapshotInfo]
    guest_full_name: str
    disks: list[VirtualDiskInfo]


@dataclass(frozen=True, slots=True)
class Warning:
    """Something a person should know of a job that goes on all the same."""

    code: str
    message: str
    disk_label: str = ""


@dataclass(frozen=True, slots=True)
class FrozenDisk:
    """A disk as a snapshot froze it."""

    index: int
    """Position among the protectable disks, ordered by device key."""
    key: int
    uuid: str
    label: str
    capacity_bytes: int
    change_id: str
    """Empty when the disk is not tracked."""
    file_name: str
    """The frozen link: "[datastore] folder/file.vmdk"."""


@dataclass(frozen=True, slots=True)
class ToldDisk:
    """A frozen disk as the hub was told of it."""

    index: int
    key: int
    uuid: str
    capacity_bytes: int
    change_id: str


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """The snapshot of one job."""

    moref: str
    vm_moref: str
    name: str
    consistency: Consistency
    disks: list[FrozenDisk]
    warnings: list[Warning]
    other_snapshots: list[str] = field(default_factory=list)
    """Names of the VM's snapshots beside this one when it was taken. A revert to one
    of them may keep the tracking's uuid and forget changes: such a job is no base."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A snapshot of this installation's agent whose job is not alive."""

    vm_moref: str
    moref: str
    name: str


@dataclass(frozen=True, slots=True)
class Needed:
    """A privilege, or several of which one will do, and what a backup does with it."""

    any_of: tuple[str, ...]
    what_for: str
    is_required: bool = True
    """Backups are known to fail, or to read everything, without it."""


@dataclass(frozen=True, slots=True)
class SurveyedVm:
    """A VM, and what a backup of it would meet."""

    info: VirtualMachineInfo
    is_off: bool
    change_tracking_supported: bool
    disks_now: list[FrozenDisk]
    """The disks that a snapshot would freeze, as they are now."""
    missing: tuple[Needed, ...]
    """Privileges that the agent's user lacks there."""


@dataclass(frozen=True, slots=True)
class LeftOutVm:
    """A VM that no job can name."""

    name: str
    moref: str
    reason: str


@dataclass(frozen=True, slots=True)
class SiteSurvey:
    """A site's VMs ordered by name; `privileges_problem`: why nothing is known of privileges."""

    machines: list[SurveyedVm]
    left_out: list[LeftOutVm]
    privileges_problem: str
