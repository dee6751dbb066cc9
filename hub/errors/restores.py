"""Restores."""

from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from hub.jobs.states import LIVE
from shared.errors import SendenseError


@dataclass(eq=False)
class NotARestorePoint(SendenseError):
    """The job did not complete, so nothing can be restored from it."""

    code: ClassVar[str] = "NOT_A_RESTORE_POINT"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "backup job {job_id} is {job_status}, so it is no restore point; "
        "sendense job list --status completed shows those that are"
    )

    job_id: str
    job_status: str

    def __str__(self) -> str:
        if self.job_status not in LIVE:
            return super().__str__()
        return (
            f"backup job {self.job_id} is {self.job_status}: it becomes a restore point when it "
            f"completes; sendense job watch {self.job_id} shows when that is"
        )


@dataclass(eq=False)
class ChainDamaged(SendenseError):
    """The layers of a disk do not add up to what its row says."""

    code: ClassVar[str] = "LAYER_DAMAGED"
    status: ClassVar[StatusCode] = StatusCode.DATA_LOSS
    text: ClassVar[str] = "layer {path} cannot be restored: {problem}"

    path: str
    problem: str


@dataclass(eq=False)
class RestoreRunning(SendenseError):
    """What is to be deleted is being read by a restore."""

    code: ClassVar[str] = "RESTORE_RUNNING"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "a restore reads {job_id}: wait for its end, then delete again"

    job_id: str


@dataclass(eq=False)
class RestoreStalled(SendenseError):
    """The client of a restore took no part of it for too long."""

    code: ClassVar[str] = "RESTORE_STALLED"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "the restore of {job_id} was ended: nothing of it was taken for {silent_s} s; "
        "restore the disk again"
    )

    job_id: str
    silent_s: int
