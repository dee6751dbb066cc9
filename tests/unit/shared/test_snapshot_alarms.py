"""When a VM's snapshots call for a person's look."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.snapshot_alarms import AlarmLimits, SnapshotFacts, snapshot_alarms

pytestmark = pytest.mark.hostile

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMITS = AlarmLimits(age_h=72, count=3)


def snapshot(name: str, age_h: float = 0, *, is_sendense: bool = False) -> SnapshotFacts:
    return SnapshotFacts(name, NOW - timedelta(hours=age_h), is_sendense)


def codes(*snapshots: SnapshotFacts) -> list[str]:
    return [alarm.code for alarm in snapshot_alarms(snapshots, NOW, LIMITS)]


def test_young_and_few_snapshots_are_passed_over() -> None:
    assert codes() == []
    assert codes(*[snapshot(name, 72) for name in "abc"]) == []


def test_old_snapshots_are_named_with_their_age() -> None:
    (alarm,) = snapshot_alarms(
        [snapshot("young", 71), snapshot("before", 73), snapshot("forgotten", 24 * 30)], NOW, LIMITS
    )
    assert alarm.code == "SNAPSHOT_OLD"
    assert '"before" is 3 days old, "forgotten" is 30 days old' in alarm.message
    assert "young" not in alarm.message
    assert "Sendense" not in alarm.message


def test_old_snapshot_of_a_backup_could_not_be_removed() -> None:
    (alarm,) = snapshot_alarms([snapshot("sendense-1", 100, is_sendense=True)], NOW, LIMITS)
    assert alarm.code == "SNAPSHOT_OLD"
    assert "could not be removed" in alarm.message


def test_more_snapshots_than_the_limit_are_told_with_the_first_names() -> None:
    names = [f"s{number}" for number in range(8)]
    (alarm,) = snapshot_alarms([snapshot(name) for name in names], NOW, LIMITS)
    assert alarm.code == "SNAPSHOT_COUNT"
    assert "8 snapshots" in alarm.message
    assert '"s4" and 3 more' in alarm.message
    assert "s5" not in alarm.message


def test_snapshot_of_a_running_backup_does_not_reach_the_limit() -> None:
    three = [snapshot(name) for name in "abc"]
    ours = [snapshot(f"sendense-{number}", is_sendense=True) for number in range(2)]
    assert codes(*three, ours[0]) == []
    assert codes(*three, *ours) == ["SNAPSHOT_COUNT"]


def test_snapshot_of_a_clock_that_is_ahead_is_not_old() -> None:
    assert codes(snapshot("tomorrow", -24)) == []
