"""Rows 21 and 28 of the failures seen in the field: snapshots left behind, sessions, stalls."""

import pytest

from sendense import BackupStatus
from tests.hostile.guest import CHANGED, add_disk, assert_restores, codes, frozen, row
from tests.model.world import World, wait_until

pytestmark = pytest.mark.hostile


def snapshot_names(world: World) -> list[str]:
    return [one.name for one in world.vm.snapshots]


def test_row_21_removal_that_fails_once_is_repeated(world: World) -> None:
    """Row 21: a snapshot was left behind."""
    disk = add_disk(world.vm)
    world.site.faults.set("snapshot-remove-fail", vm=world.vm.name, times=1)
    job = world.completed()
    world.site.faults.assert_all_fired()
    assert codes(job) == []
    assert snapshot_names(world) == []
    assert_restores(world, job, frozen(disk))


def test_row_21_snapshot_that_stays_is_told_and_swept_by_the_next_backup(world: World) -> None:
    """Row 21: a snapshot was left behind, or one job deleted another's."""
    disk = add_disk(world.vm)
    world.vm.create_snapshot("somebody else's")
    world.site.faults.set("snapshot-remove-fail", vm=world.vm.name)
    first = world.completed()
    assert "SNAPSHOT_LEFT_BEHIND" in codes(first)
    assert len(snapshot_names(world)) == 2
    world.site.faults.assert_all_fired()
    world.site.faults.clear()
    disk.write(2)
    second = world.completed()
    assert "SNAPSHOT_LEFT_BEHIND" not in codes(second)
    wait_until("the leftover is swept", lambda: snapshot_names(world) == ["somebody else's"])
    assert_restores(world, second, frozen(disk))


def test_row_21_snapshot_that_stays_is_swept_when_the_agent_starts(world: World) -> None:
    """Row 21: a snapshot was left behind by an agent that is gone."""
    add_disk(world.vm)
    world.site.faults.set("snapshot-remove-fail", vm=world.vm.name)
    assert "SNAPSHOT_LEFT_BEHIND" in codes(world.completed())
    world.agent.stop()
    assert len(snapshot_names(world)) == 1
    world.site.faults.clear()
    world.vm.create_snapshot("sendense-of-somebody")  # the name alone makes it nobody's
    world.agent.start()
    wait_until("the leftover is swept", lambda: len(snapshot_names(world)) == 1)
    assert snapshot_names(world) == ["sendense-of-somebody"]


def test_row_21_snapshot_of_a_running_job_is_not_swept(world: World) -> None:
    """Row 21: one job deleted another's snapshot."""
    add_disk(world.vm)
    other = world.site.add_vm("pgtest2")
    disk = add_disk(other)
    world.wait_agent()
    stall = world.site.faults.set("nfc-stall", vm=other.name)  # new connections, too
    held = world.start(vm=other)
    assert stall.wait_fired(30)
    alive = [one.name for one in other.snapshots]
    world.site.faults.set("snapshot-remove-fail", vm=world.vm.name)
    assert "SNAPSHOT_LEFT_BEHIND" in codes(world.completed())
    world.site.faults.clear("snapshot-remove-fail")
    world.completed()  # sweeps
    wait_until("the leftover is swept", lambda: snapshot_names(world) == [])
    assert alive and [one.name for one in other.snapshots] == alive
    world.site.faults.clear()
    job = world.wait(held)
    assert job.status == BackupStatus.COMPLETED, job
    assert_restores(world, job, frozen(disk))


@pytest.mark.parametrize("on_read", [0, 2])
def test_row_28_session_that_ends_in_mid_read_is_renewed_and_the_read_goes_on(
    world: World, on_read: int
) -> None:
    """Row 28: a session expired after 30 minutes in mid-read."""
    disk = add_disk(world.vm, 160, filled=160)
    world.site.faults.set("session-expiry", on="read", skip=on_read, times=1)
    # A new connection needs a new ticket, and that a session.
    world.site.faults.set("nfc-cut", vm=world.vm.name, skip=on_read, times=1)
    job = world.completed()
    world.site.faults.assert_all_fired()
    assert snapshot_names(world) == []
    assert_restores(world, job, frozen(disk))


@pytest.mark.parametrize("world", [1.0], indirect=True, ids=["1 s"])
@pytest.mark.parametrize("at_byte", [None, 100, 200_000])
def test_row_28_stalled_read_is_cut_and_repeated_on_a_new_connection(
    world: World, at_byte: int | None
) -> None:
    """Row 28: reads hung for days."""
    disk = add_disk(world.vm, 96, filled=96)
    full = world.completed()
    disk.write(10, 20)
    options = {} if at_byte is None else {"at_byte": at_byte}
    world.site.faults.set("nfc-stall", vm=world.vm.name, times=1, **options)
    job = world.completed()
    world.site.faults.assert_all_fired()
    assert row(job, disk).read_method == CHANGED
    assert row(job, disk).base_job_id == full.job_id
    assert_restores(world, job, frozen(disk))
