"""The states of a job and the one table by which they change."""

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Status(StrEnum):
    """Where a job or one of its disks stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BackupType(StrEnum):
    """How a disk, or most of a job, is backed up."""

    FULL = "full"
    INCREMENTAL = "incremental"


class ReadMethod(StrEnum):
    """How the agent finds out what of a disk to send."""

    ALLOCATED = "allocated"  # all there is; no base
    CHANGED = "changed"  # what changed block tracking tells, and a sample of the rest
    COMPARED = "compared"  # all there is; what differs from the base is sent


class Consistency(StrEnum):
    """What the snapshot promises of the data's state."""

    CRASH = "crash"
    FILE_SYSTEM = "file_system"


class Event(StrEnum):
    """What can happen to a job."""

    AGENT_OPENED = "agent_opened"
    ALL_DISKS_SEALED = "all_disks_sealed"
    FAILED = "failed"
    CANCELLED = "cancelled"


LIVE: Final = (Status.PENDING, Status.RUNNING)

TRANSITIONS: Final = MappingProxyType(
    {
        (Status.PENDING, Event.AGENT_OPENED): Status.RUNNING,
        (Status.RUNNING, Event.ALL_DISKS_SEALED): Status.COMPLETED,  # the only way to COMPLETED
    }
    | {(status, Event.FAILED): Status.FAILED for status in LIVE}
    | {(status, Event.CANCELLED): Status.CANCELLED for status in LIVE}
)


def sources(event: Event) -> tuple[Status, ...]:
    """The states in which the event may happen."""
    return tuple(status for status, happened in TRANSITIONS if happened is event)


def target(event: Event) -> Status:
    """The state the event leads to; it is the same from every source."""
    (status,) = {after for (_, happened), after in TRANSITIONS.items() if happened is event}
    return status
