"""What a probe found: plain data, the same on the screen and as JSON (docs/operations.md)."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class VsphereReport:
    """Who answered."""

    address: str
    full_name: str
    api_type: str
    """"HostAgent" (one ESXi host) or "VirtualCenter"."""
    api_version: str


@dataclass(frozen=True, slots=True)
class MissingPrivilege:
    """What the user may not do, and where; one of `any_of` has to be granted."""

    any_of: list[str]
    what_for: str
    vms: list[str]
    """Names of the VMs where it is missing, in order."""


@dataclass(frozen=True, slots=True)
class PrivilegesReport:
    """`problem`: why nothing is known; both lists are empty then."""

    user: str
    missing: list[MissingPrivilege]
    """Backups need these."""
    recommended: list[MissingPrivilege]
    """Missing as well, but no backup is known to need them."""
    problem: str


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """A snapshot of a VM."""

    name: str
    created_at: str
    """RFC 3339, by the host's clock."""
    is_sendense: bool


@dataclass(frozen=True, slots=True)
class AlarmReport:
    """What of a VM's snapshots needs a look."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class TrackingReport:
    """Changed block tracking of a VM.

    `state`: "active", "enabled" (some disk has no change id yet), "off", "off_snapshots"
    (off, and stays off while the VM has snapshots), "not_supported".
    """

    state: str
    message: str


@dataclass(frozen=True, slots=True)
class DiskReport:
    """A disk; `problem` is why it cannot be backed up, empty when it can."""

    label: str
    key: int
    uuid: str
    capacity_bytes: int
    mode: str
    file_name: str
    tracked: bool
    problem: str


@dataclass(frozen=True, slots=True)
class MachineReport:
    """A VM; `problem` is why it cannot be backed up at all, empty when it can."""

    name: str
    moref: str
    instance_uuid: str
    power_state: str
    tracking: TrackingReport
    snapshots: list[SnapshotReport]
    alarms: list[AlarmReport]
    disks: list[DiskReport]
    problem: str


@dataclass(frozen=True, slots=True)
class LeftOutReport:
    """A VM that no backup can name, and why."""

    name: str
    moref: str
    reason: str


@dataclass(frozen=True, slots=True)
class FailedRead:
    """What could not be read, so that something else was tried; `disk` may be empty."""

    source: str
    vm: str
    snapshot: str
    disk: str
    problem: str
    problem_code: str


@dataclass(frozen=True, slots=True)
class ReadReport:
    """A timed read of a frozen disk. With `problem_code`, it failed, as all that was tried before.

    The numbers say how far the last one came then. Without a `source` there was
    nothing to read: `problem` says what would be.
    """

    source: str
    """"powered-off VM" or "snapshot"; empty: none was found."""
    vm: str
    snapshot: str
    disk: str
    file_name: str
    transport: str
    wanted_bytes: int
    read_bytes: int
    allocated_only: bool
    """What the host calls allocated was read; else the disk from its start."""
    open_s: float
    """Seconds for ticket, connection and opening."""
    read_s: float
    mib_per_s: float
    problem: str
    problem_code: str
    failed_before: list[FailedRead]


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """All of it."""

    site: str
    agent_version: str
    vsphere: VsphereReport
    privileges: PrivilegesReport
    machines: list[MachineReport]
    left_out: list[LeftOutReport]
    read: ReadReport
    format: int = field(default=1)
    """Grows when a field changes its meaning or goes."""

    @property
    def ok(self) -> bool:
        """Nothing that was looked at stands against backups: privileges and the read."""
        privileges_fine = not self.privileges.missing and not self.privileges.problem
        return privileges_fine and not self.read.problem_code
