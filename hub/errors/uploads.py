"""Uploads and their frames."""

from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


@dataclass(eq=False)
class DiskNotUploadable(SendenseError):
    """The disk's row is in no state that takes an upload."""

    code: ClassVar[str] = "DISK_NOT_UPLOADABLE"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "disk {disk_index} of {job_id} takes no upload: {problem}"

    job_id: str
    disk_index: int
    problem: str


@dataclass(eq=False)
class UploadNotReady(SendenseError):
    """The hub cannot take the disk's upload yet; what it has of it stays."""

    code: ClassVar[str] = "UPLOAD_NOT_READY"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "disk {disk_index} of {job_id} cannot be taken yet: {problem}"

    job_id: str
    disk_index: int
    problem: str


@dataclass(eq=False)
class UploadSuperseded(SendenseError):
    """A newer call uploads the disk: the agent has given this one up."""

    code: ClassVar[str] = "UPLOAD_SUPERSEDED"
    status: ClassVar[StatusCode] = StatusCode.ABORTED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "a newer call uploads disk {disk_index} of {job_id}"

    job_id: str
    disk_index: int


@dataclass(eq=False)
class UploadTruncated(SendenseError):
    """The upload ended early, or its totals are not what arrived."""

    code: ClassVar[str] = "UPLOAD_TRUNCATED"
    status: ClassVar[StatusCode] = StatusCode.DATA_LOSS
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "upload of disk {disk_index} of {job_id} is incomplete: {problem}"

    job_id: str
    disk_index: int
    problem: str


@dataclass(eq=False)
class UploadStalled(SendenseError):
    """The agent sent no part of an upload for too long."""

    code: ClassVar[str] = "UPLOAD_STALLED"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "disk {disk_index} of {job_id}: the agent sent nothing for {silent_s} s"

    job_id: str
    disk_index: int
    silent_s: int


@dataclass(eq=False)
class DiskHasNoBase(SendenseError):
    """The digests of a disk's base were asked for, but it is backed up without one."""

    code: ClassVar[str] = "DISK_HAS_NO_BASE"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "disk {disk_index} of {job_id} has no base: all of it is backed up"

    job_id: str
    disk_index: int


@dataclass(eq=False)
class FrameRefused(SendenseError):
    """A frame breaks a rule of the format."""

    code: ClassVar[str] = "FRAME_INVALID"
    status: ClassVar[StatusCode] = StatusCode.INVALID_ARGUMENT
    text: ClassVar[str] = "disk {disk_index} of {job_id}: {problem}"

    job_id: str
    disk_index: int
    problem: str


@dataclass(eq=False)
class FrameDamaged(SendenseError):
    """A frame's bytes changed on their way."""

    code: ClassVar[str] = "FRAME_CORRUPT"
    status: ClassVar[StatusCode] = StatusCode.DATA_LOSS
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "disk {disk_index} of {job_id}: {problem}"

    job_id: str
    disk_index: int
    problem: str
