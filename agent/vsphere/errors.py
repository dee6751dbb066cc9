"""What vSphere refuses, and what to do about it. No text ever holds a password."""

from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


class VsphereError(SendenseError):
    """Base of everything that talking to vSphere raises."""

    code: ClassVar[str] = "VSPHERE_FAILED"


@dataclass(eq=False)
class VsphereUnreachable(VsphereError):
    """No connection, or the connection broke; what was asked for may have happened."""

    code: ClassVar[str] = "VSPHERE_UNREACHABLE"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "cannot talk to vSphere at {address}: {problem}; "
        "check the address and that this machine reaches its TCP port (usually 443)"
    )

    address: str
    problem: str


@dataclass(eq=False)
class LoginFailed(VsphereError):
    """vSphere does not accept user and password."""

    code: ClassVar[str] = "VSPHERE_LOGIN_FAILED"
    status: ClassVar[StatusCode] = StatusCode.UNAUTHENTICATED
    text: ClassVar[str] = (
        "vSphere at {address} refuses the login of {user!r} ({problem}); "
        "check the user name and the password file"
    )

    address: str
    user: str
    problem: str


@dataclass(eq=False)
class SessionLost(VsphereError):
    """Logins succeed, but their sessions end at once. What was asked for did not happen."""

    code: ClassVar[str] = "VSPHERE_SESSION_LOST"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "vSphere at {address} takes the login but ends its sessions at once, trying to {doing}; "
        "see whether something there terminates sessions, or too many are open"
    )

    address: str
    doing: str


@dataclass(eq=False)
class CertificateMismatch(VsphereError):
    """The server is not the one that was pinned, or no trusted authority vouches for it."""

    code: ClassVar[str] = "VSPHERE_CERTIFICATE_MISMATCH"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "{address} shows a certificate that is not trusted: expected {expected}, seen {seen}; "
        "if the certificate was renewed, check the new fingerprint at the host's console and set "
        "certificate_sha256 to it, else find out who answers there"
    )

    address: str
    expected: str
    seen: str


@dataclass(eq=False)
class CertificateNotPinned(VsphereError):
    """Nothing says which certificate to trust. Nothing was sent to the server."""

    code: ClassVar[str] = "VSPHERE_CERTIFICATE_NOT_PINNED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "nothing says which certificate of {address} to trust; it shows the SHA-256 fingerprint "
        "{seen}: compare it with the host's console, then set certificate_sha256 to it under "
        "[vsphere], or set ca_file to the authority that signed it"
    )

    address: str
    seen: str


@dataclass(eq=False)
class PermissionMissing(VsphereError):
    """The user may not do this."""

    code: ClassVar[str] = "VSPHERE_PERMISSION_MISSING"
    status: ClassVar[StatusCode] = StatusCode.PERMISSION_DENIED
    text: ClassVar[str] = (
        "the vSphere user {user!r} may not {doing}: the privilege {privilege} is missing; "
        "add it to the user's role"
    )

    user: str
    doing: str
    privilege: str


@dataclass(eq=False)
class VsphereFault(VsphereError):
    """vSphere answered with a fault that has no class of its own here."""

    code: ClassVar[str] = "VSPHERE_FAULT"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "vSphere cannot {doing}: {fault}: {problem}; the tasks and events of the host tell more"
    )

    doing: str
    fault: str
    problem: str

    @property
    def is_object_gone(self) -> bool:
        """What was asked, or asked of, does not exist, or no longer."""
        return self.fault.endswith("ManagedObjectNotFound")


@dataclass(eq=False)
class TaskTimedOut(VsphereError):
    """A task did not end in time. It may still be running."""

    code: ClassVar[str] = "VSPHERE_TASK_TIMED_OUT"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    text: ClassVar[str] = (
        "vSphere's task to {doing} did not end within {timeout_s:g} s and may still run; "
        "look at it in vSphere"
    )

    doing: str
    timeout_s: float


@dataclass(eq=False)
class VmNotFound(VsphereError):
    """The VM is gone, or another one took its id."""

    code: ClassVar[str] = "VM_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "vSphere at {address} has no VM {vm_moref} (instance uuid {instance_uuid}): {problem}; "
        "refresh the inventory and choose the VM again"
    )

    address: str
    vm_moref: str
    instance_uuid: str
    problem: str


@dataclass(eq=False)
class NoDisks(VsphereError):
    """The VM has no disk that a snapshot could freeze. No snapshot was left."""

    code: ClassVar[str] = "NO_DISKS"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "VM {vm_name} has no disk that can be backed up ({problem}); "
        "add a disk, or change the disk mode to persistent"
    )

    vm_name: str
    problem: str


@dataclass(eq=False)
class SnapshotFailed(VsphereError):
    """No snapshot of the job could be made; none was left."""

    code: ClassVar[str] = "SNAPSHOT_FAILED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "cannot take a snapshot of VM {vm_name}: {problem}; see the VM's tasks and events in "
        "vSphere, and whether its datastore has free space"
    )

    vm_name: str
    problem: str


@dataclass(eq=False)
class SnapshotMaybeLeft(VsphereError):
    """The job has no snapshot to read, but one may stand or yet appear at the VM.

    The first failure is the cause (`__cause__`). Whoever catches this warns of
    the snapshot and searches for leftovers later; SnapshotFailed needs neither.
    """

    code: ClassVar[str] = "SNAPSHOT_FAILED"  # to whoever starts backups it is the same failure
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "cannot take a snapshot of VM {vm_moref}: {problem}; snapshot {snapshot} may be left "
        "there ({doubt}): the agent looks for it and removes it, or remove it in vSphere"
    )

    vm_moref: str
    snapshot: str
    problem: str
    doubt: str


@dataclass(eq=False)
class SnapshotNotRemoved(VsphereError):
    """A snapshot of ours still stands, or its disks are not consolidated."""

    code: ClassVar[str] = "SNAPSHOT_NOT_REMOVED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "snapshot {snapshot} of VM {vm_moref} was left behind: {problem}; it grows with every "
        "write of the VM; it is tried again before the VM's next backup and, more and more "
        "seldom, while the agent runs, or remove it in vSphere"
    )

    snapshot: str
    vm_moref: str
    problem: str


@dataclass(eq=False)
class DisksNotConsolidated(SnapshotNotRemoved):
    """The snapshot is gone, but its files are not merged and stay in use."""

    code: ClassVar[str] = "DISKS_NOT_CONSOLIDATED"
    text: ClassVar[str] = (
        "snapshot {snapshot} of VM {vm_moref} is removed, but the disks need consolidation: "
        "{problem}; the files it left grow with every write of the VM; it is tried again before "
        "the VM's next backup and, more and more seldom, while the agent runs, or consolidate in "
        "vSphere"
    )


@dataclass(eq=False)
class ChangeTrackingUnusable(VsphereError):
    """vSphere cannot tell what changed: the whole disk has to be read."""

    code: ClassVar[str] = "CHANGE_TRACKING_UNUSABLE"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "vSphere cannot tell what changed on {disk_label}: {reason}"

    disk_label: str
    reason: str
