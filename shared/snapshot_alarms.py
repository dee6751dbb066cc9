"""When a VM's snapshots call for a person's look: the agent tells at a job, the hub at any time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

SNAPSHOT_OLD: Final = "SNAPSHOT_OLD"
SNAPSHOT_COUNT: Final = "SNAPSHOT_COUNT"
CONSOLIDATION_NEEDED: Final = "CONSOLIDATION_NEEDED"

DEFAULT_AGE_ALARM_H: Final = 72.0
DEFAULT_COUNT_ALARM: Final = 3

_MOST_NAMES = 5
_HOURS_OF_DAYS = 48


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """What counts of a snapshot; `created_at` is aware."""

    name: str
    created_at: datetime
    is_sendense: bool
    """A backup of some Sendense installation made it."""


@dataclass(frozen=True, slots=True)
class AlarmLimits:
    """What is passed over in silence: snapshots this old, in hours, and so many of a VM."""

    age_h: float = DEFAULT_AGE_ALARM_H
    count: int = DEFAULT_COUNT_ALARM


@dataclass(frozen=True, slots=True)
class Alarm:
    """`code` is stable; `message` says what it is and what to do."""

    code: str
    message: str


def snapshot_alarms(
    snapshots: Sequence[SnapshotFacts], now: datetime, limits: AlarmLimits
) -> list[Alarm]:
    """At most one of a kind, SNAPSHOT_OLD first.

    One snapshot of Sendense is not counted: a backup that runs has one.
    """
    alarms: list[Alarm] = []
    ages_h = [(now - one.created_at).total_seconds() / 3600 for one in snapshots]
    old = [
        (one, age_h) for one, age_h in zip(snapshots, ages_h, strict=True) if age_h > limits.age_h
    ]
    if old:
        told = _listed([f'"{one.name}" is {_age(age_h)} old' for one, age_h in old])
        whose = (
            "; a snapshot of Sendense that stays this long could not be removed: the agent's log "
            "tells why"
            if any(one.is_sendense for one, _ in old)
            else ""
        )
        alarms.append(
            Alarm(
                SNAPSHOT_OLD,
                f"snapshot {told}: it grows with every write of the VM and slows it down; remove "
                f"it when nobody needs it{whose}",
            )
        )
    count = len(snapshots) - any(one.is_sendense for one in snapshots)
    if count > limits.count:
        told = _listed([f'"{one.name}"' for one in snapshots])
        alarms.append(
            Alarm(
                SNAPSHOT_COUNT,
                f"the VM has {len(snapshots)} snapshots ({told}): every read passes through all of "
                "them; remove those that nobody needs",
            )
        )
    return alarms


def consolidation_alarm() -> Alarm:
    """Of a VM that vSphere calls in need of it."""
    return Alarm(
        CONSOLIDATION_NEEDED,
        "vSphere says that the VM's disks need consolidation: files of removed snapshots are still "
        "there and grow; the next backup consolidates first, or do it in vSphere",
    )


def _age(age_h: float) -> str:
    return f"{age_h:.0f} h" if age_h < _HOURS_OF_DAYS else f"{age_h / 24:.0f} days"


def _listed(texts: list[str]) -> str:
    more = len(texts) - _MOST_NAMES
    return ", ".join(texts[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
