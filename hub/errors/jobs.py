"""Jobs, their disks and contexts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


@dataclass(eq=False)
class BackupRunning(SendenseError):
    """The context has a job that has not ended."""

    code: ClassVar[str] = "BACKUP_RUNNING"
    status: ClassVar[StatusCode] = StatusCode.ALREADY_EXISTS
    text: ClassVar[str] = (
        "backup {job_id} of this VM into this repository has not ended: wait for its end, "
        "or cancel it with sendense job cancel {job_id}"
    )

    job_id: str
    context_id: str


@dataclass(eq=False)
class JobNotFound(SendenseError):
    """The catalog has no such job."""

    code: ClassVar[str] = "JOB_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = "there is no backup job {job_id!r}; sendense job list shows all"

    job_id: str


@dataclass(eq=False)
class DiskNotFound(SendenseError):
    """The job has no disk of that index."""

    code: ClassVar[str] = "DISK_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "backup job {job_id!r} has no disk {disk_index}; sendense disk list {job_id} shows its disks"
    )

    job_id: str
    disk_index: int


@dataclass(eq=False)
class ContextNotFound(SendenseError):
    """The catalog has no such context."""

    code: ClassVar[str] = "CONTEXT_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "there is no backup context {context_id!r}; sendense context list shows all"
    )

    context_id: str


@dataclass(eq=False)
class ChangeIdNotFound(SendenseError):
    """The disk has no change id that an increment could build on."""

    code: ClassVar[str] = "CHANGE_ID_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = "no change id of disk {disk_index} of VM {vm!r}: {problem}"

    vm: str
    disk_index: int
    problem: str


@dataclass(eq=False)
class JobEnded(SendenseError):
    """The job has ended; nothing more is taken for it."""

    code: ClassVar[str] = "JOB_ENDED"
    status: ClassVar[StatusCode] = StatusCode.ABORTED
    text: ClassVar[str] = "backup job {job_id} has ended: {job_status}"

    job_id: str
    job_status: str


@dataclass(eq=False)
class JobNotEnded(SendenseError):
    """What is to be deleted has, or is, a job that has not ended."""

    code: ClassVar[str] = "JOB_NOT_ENDED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "backup job {job_id} has not ended: wait for its end or cancel it, then delete again"
    )

    job_id: str


@dataclass(eq=False)
class JobHasDependants(SendenseError):
    """Later jobs build on the job; without it they could not be restored."""

    code: ClassVar[str] = "JOB_HAS_DEPENDANTS"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "later backups build on {job_id}: {dependants}; delete them first, or all together with "
        'sendense job delete --cascade {job_id} ("cascade": true in a request)'
    )

    job_id: str
    dependants: Sequence[str]  # oldest first

    def __str__(self) -> str:
        return self.text.format(job_id=self.job_id, dependants=", ".join(self.dependants))


@dataclass(eq=False)
class JobNotUnsuccessful(SendenseError):
    """Only failed and cancelled jobs are retried."""

    code: ClassVar[str] = "JOB_NOT_UNSUCCESSFUL"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "backup job {job_id} is {job_status}: only failed and cancelled jobs are retried; "
        "start a new backup instead"
    )

    job_id: str
    job_status: str


@dataclass(eq=False)
class JobStalled(SendenseError):
    """The agent is there, but gives no sign of work on the job, also when asked to resume it."""

    code: ClassVar[str] = "JOB_STALLED"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "the agent is connected, but gave no sign of work on {job_id} for {silent_s} s, and did "
        "not name it among the jobs it is at work on: look at its log, then sendense job retry {job_id}"
    )

    job_id: str
    silent_s: int


@dataclass(eq=False)
class HubRestarted(SendenseError):
    """The hub ended while the job was running."""

    code: ClassVar[str] = "HUB_RESTARTED"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the hub was stopped before the backup had ended; start it again"


@dataclass(eq=False)
class SnapshotChanged(SendenseError):
    """A job is to go on, and its agent's snapshot is not the one that was read so far."""

    code: ClassVar[str] = "SNAPSHOT_CHANGED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "backup job {job_id} cannot go on: {problem}; what was read so far is of another "
        "moment. Start it again with sendense job retry {job_id}"
    )

    job_id: str
    problem: str


@dataclass(eq=False)
class StillRecovering(SendenseError):
    """The hub, which was started a moment ago, still looks at the layers of the job."""

    code: ClassVar[str] = "STILL_RECOVERING"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "the hub was started a moment ago and still looks at the layers of {job_id}: try again"
    )

    job_id: str


@dataclass(eq=False)
class Cancelled(SendenseError):
    """Somebody asked for the job's end."""

    code: ClassVar[str] = "CANCELLED"
    status: ClassVar[StatusCode] = StatusCode.CANCELLED
    text: ClassVar[str] = "{why}"

    why: str
