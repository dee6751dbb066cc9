"""The enumerations of the API as Python enums; their numbers are those of the protos."""

from enum import IntEnum


class BackupType(IntEnum):
    """How a disk, or most of a job, is backed up."""

    UNSPECIFIED = 0
    FULL = 1
    INCREMENTAL = 2


class BackupStatus(IntEnum):
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


class ConsistencyLevel(IntEnum):
    """What the snapshot promises of the data's state."""

    UNSPECIFIED = 0
    CRASH = 1
    FILE_SYSTEM = 2
