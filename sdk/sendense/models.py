"""The enumerations of the API as Python enums; their numbers are those of the protos.

`BackupStatus(job.status)` turns a message's number into one; a number that this
version does not know, from a newer hub, becomes UNSPECIFIED.
"""

import re
from enum import IntEnum
from typing import Self


class OpenEnum(IntEnum):
    """An enumeration that takes numbers it does not know, as UNSPECIFIED."""

    @property
    def proto_name(self) -> str:
        """As the protos call it: BACKUP_STATUS_RUNNING."""
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).upper()
        return f"{prefix}_{self.name}"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls(0) if isinstance(value, int) else None


class BackupType(OpenEnum):
    """How a disk, or most of a job, is backed up."""

    UNSPECIFIED = 0
    FULL = 1
    INCREMENTAL = 2


class ReadMethod(OpenEnum):
    """How the agent finds out what of a disk to send."""

    UNSPECIFIED = 0
    ALLOCATED = 1
    CHANGED = 2
    COMPARED = 3


class BackupStatus(OpenEnum):
    """Where a job or a disk stands."""

    UNSPECIFIED = 0
    PENDING = 1
    RUNNING = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5

    @property
    def ended(self) -> bool:
        """True for the states that nothing changes any more."""
        return self >= BackupStatus.COMPLETED


class BackupOrder(OpenEnum):
    """How a list of jobs is ordered, by the time of their creation; unspecified is newest first."""

    UNSPECIFIED = 0
    NEWEST_FIRST = 1
    OLDEST_FIRST = 2


class ConsistencyLevel(OpenEnum):
    """What the snapshot promises of the data's state."""

    UNSPECIFIED = 0
    CRASH = 1
    FILE_SYSTEM = 2


class RecoveryDecision(OpenEnum):
    """What became of a job that had not ended when the hub started."""

    UNSPECIFIED = 0
    QUEUED = 1
    WAITS_FOR_AGENT = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5


class RecoveredLayer(OpenEnum):
    """What was found of a disk whose upload had not ended when the hub started."""

    UNSPECIFIED = 0
    NONE = 1
    REOPENED = 2
    SEALED = 3


class Protection(OpenEnum):
    """Whether VMs are asked for that have a restore point; unspecified is all."""

    UNSPECIFIED = 0
    PROTECTED = 1
    NOT_PROTECTED = 2
