"""The enumerations of the API as Python enums; their numbers are those of the protos.

`BackupStatus(job.status)` turns a message's number into one; a number that this
version does not know, from a newer hub, becomes UNSPECIFIED.
"""

from enum import IntEnum
from typing import Self


class _Open(IntEnum):
    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls(0) if isinstance(value, int) else None


class BackupType(_Open):
    """How a disk, or most of a job, is backed up."""

    UNSPECIFIED = 0
    FULL = 1
    INCREMENTAL = 2


class BackupStatus(_Open):
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


class ConsistencyLevel(_Open):
    """What the snapshot promises of the data's state."""

    UNSPECIFIED = 0
    CRASH = 1
    FILE_SYSTEM = 2
