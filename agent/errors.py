"""What can go wrong in the agent's own work; each becomes a job's `BackupError`."""

from dataclasses import dataclass, field
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


@dataclass(eq=False)
class JobCancelled(SendenseError):
    """The hub asked for the end of the job."""

    code: ClassVar[str] = "CANCELLED"
    status: ClassVar[StatusCode] = StatusCode.CANCELLED
    text: ClassVar[str] = "the job was cancelled: {reason}"

    reason: str


@dataclass(eq=False)
class AgentStopping(SendenseError):
    """The agent was told to stop; its jobs end and their snapshots are removed."""

    code: ClassVar[str] = "AGENT_STOPPING"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the agent of site {site} was stopped; start the backup again"

    site: str


@dataclass(eq=False)
class SessionLost(SendenseError):
    """The session that started the job is gone, and with it the hub's interest in the job."""

    code: ClassVar[str] = "SESSION_LOST"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the session with the hub at {hub_address} ended: {problem}"

    hub_address: str
    problem: str


@dataclass(eq=False)
class HubRefused(SendenseError):
    """The hub ended a call with a status of its own; `reason` is its ErrorInfo's.

    `retryable`: it may take the same call a little later, and kept what was durable.
    """

    code: ClassVar[str] = "HUB_REFUSED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "{message}"

    reason: str
    message: str
    # Here it is the hub's word, not the class's.
    retryable: bool = field(default=False, kw_only=True)  # type: ignore[misc]


@dataclass(eq=False)
class BaseUnusable(HubRefused):
    """The hub cannot tell what the base of a disk holds: it has none, or a damaged one."""


@dataclass(eq=False)
class HubUnreachable(SendenseError):
    """A call did not reach the hub, or the connection broke under it."""

    code: ClassVar[str] = "HUB_UNREACHABLE"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the connection to the hub failed ({problem})"

    problem: str


@dataclass(eq=False)
class DiskGivenUp(SendenseError):
    """A disk was tried again for as long as a hub is waited for; `reason` is the last error's."""

    code: ClassVar[str] = "DISK_GIVEN_UP"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "{disk}: {problem}; nothing more of the disk reached the hub's repository since {since}, "
        "although the agent tried for {waited_s:g} s; see that the hub runs, that this agent "
        "reaches it and that its repository storage answers, then start the backup again"
    )

    reason: str
    disk: str
    problem: str
    since: str
    waited_s: float


@dataclass(eq=False)
class HubNotServing(SendenseError):
    """A look at the hub found none that serves."""

    code: ClassVar[str] = "HUB_NOT_SERVING"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "the hub at {hub_address} does not serve: {problem}; "
        "see whether it runs, and whether hub_address is its address"
    )

    hub_address: str
    problem: str


@dataclass(eq=False)
class HubMisbehaved(SendenseError):
    """The hub's answer breaks the protocol."""

    code: ClassVar[str] = "PROTOCOL_VIOLATION"
    text: ClassVar[str] = "the hub broke the protocol: {problem}"

    problem: str


@dataclass(eq=False)
class SnapshotVanished(SendenseError):
    """The disks that the job reads are not frozen any more; what was read of them may be torn."""

    code: ClassVar[str] = "SNAPSHOT_VANISHED"
    status: ClassVar[StatusCode] = StatusCode.ABORTED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "snapshot {snapshot} of VM {vm_moref} {problem} while the job read its disks: what was "
        "read may be a mix of different moments, and none of it is kept; the VM's tasks and events "
        "in vSphere tell who did it; see that nothing else removes the snapshots of running "
        "backups or moves the VM's disks, then start the backup again"
    )

    snapshot: str
    vm_moref: str
    problem: str


@dataclass(eq=False)
class SnapshotLost(SnapshotVanished):
    """The snapshot of a job that an earlier run of the agent began is not what it was."""

    text: ClassVar[str] = (
        "snapshot {snapshot} of VM {vm_moref} {problem}: the backup that was interrupted when the "
        "agent ended cannot go on; the VM's tasks and events in vSphere tell who did it; "
        "start the backup again"
    )


@dataclass(eq=False)
class PlanOverdue(SendenseError):
    """The snapshot stood, but the hub did not say how to back up its disks."""

    code: ClassVar[str] = "PLAN_OVERDUE"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the hub sent no plan for job {job_id} within {waited_s:g} s"

    job_id: str
    waited_s: float


@dataclass(eq=False)
class UploadStalled(SendenseError):
    """The hub acknowledged nothing for too long while it had something to acknowledge."""

    code: ClassVar[str] = "UPLOAD_STALLED"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "the hub answered nothing for {waited_s:g} s while disk {disk_index} was uploaded; "
        "look at the hub's repository storage"
    )

    disk_index: int
    waited_s: float


@dataclass(eq=False)
class BaseDigestsOverdue(SendenseError):
    """The hub was asked what the base of a disk holds, and did not answer."""

    code: ClassVar[str] = "BASE_DIGESTS_OVERDUE"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "the hub did not tell within {waited_s:g} s what the last backup of disk {disk_index} "
        "holds; look at the hub's repository storage"
    )

    disk_index: int
    waited_s: float


@dataclass(eq=False)
class ReadStalled(SendenseError):
    """The source of a disk gave no byte for too long."""

    code: ClassVar[str] = "READ_STALLED"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "reading {disk} gave nothing for {waited_s:g} s"

    disk: str
    waited_s: float


@dataclass(eq=False)
class ReadMismatch(SendenseError):
    """The source of a disk answered with other bytes than were asked for."""

    code: ClassVar[str] = "READ_MISMATCH"
    status: ClassVar[StatusCode] = StatusCode.DATA_LOSS
    text: ClassVar[str] = "reading {disk}: {problem}"

    disk: str
    problem: str


@dataclass(eq=False)
class VmBusy(SendenseError):
    """An old snapshot of the VM is still being removed."""

    code: ClassVar[str] = "VM_BUSY"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "a snapshot that an earlier job left on VM {vm_moref} was still being removed after "
        "{waited_s:g} s; see the VM's tasks in vSphere, and start the backup again when they ended"
    )

    vm_moref: str
    waited_s: float
