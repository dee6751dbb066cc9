"""Rows 10 to 15 of the failures seen in the field: changed block tracking, zeros, reverts."""

from typing import Any

import pytest

from simulator.disks.tracking import REVERTED_TRACKING, RevertedTracking
from tests.hostile.guest import (
    ALLOCATED,
    CHANGED,
    COMPARED,
    add_disk,
    assert_restores,
    codes,
    frozen,
    row,
)
from tests.hostile.layers import own_clusters
from tests.model.disks import CLUSTER
from tests.model.world import World

pytestmark = pytest.mark.hostile


@pytest.mark.parametrize(
    "options", [{"bytes": 7 * CLUSTER}, {"bytes": 1 << 20, "areas": 1}, {"areas": 2}], ids=str
)
def test_row_10_changes_are_asked_for_slice_by_slice_to_the_end(
    world: World, options: dict[str, Any]
) -> None:
    """Row 10: the first slice of the answer was taken for everything."""
    disk = add_disk(world.vm, 96, tail=512)
    world.completed()
    for cluster in (0, 9, 40, 41, 96):
        disk.write(cluster)
    fault = world.site.faults.set("cbt-slice-bytes", vm=world.vm.name, **options)
    job = world.completed()
    assert fault.fired > 1
    assert row(job, disk).read_method == CHANGED
    assert_restores(world, job, frozen(disk))


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("cbt-zero-slice", {}),
        ("cbt-gap", {}),
        ("cbt-unsorted", {}),
        ("cbt-overlap", {}),
        ("cbt-beyond-capacity", {}),
        ("file-fault", {}),
    ],
    ids=str,
)
def test_row_10_answers_that_make_no_sense_are_not_used(
    world: World, fault: str, options: dict[str, Any]
) -> None:
    """Row 10: areas that overlap, lie past the end, or come without an order."""
    disk = add_disk(world.vm)
    full = world.completed()
    disk.write(2)
    disk.write(50)
    world.site.faults.set(fault, vm=world.vm.name, times=1, **options)
    job = world.completed()
    world.site.faults.assert_all_fired()
    told = row(job, disk)
    assert (told.read_method, told.base_job_id) == (COMPARED, full.job_id)
    assert told.read_reason
    assert codes(job) == ["COMPARED_INSTEAD_OF_TRACKING"]
    assert own_length(world, job.job_id) == 2 * CLUSTER, "only what differs is stored"
    assert_restores(world, job, frozen(disk))


def test_row_11_changes_that_tracking_leaves_out_are_found_by_sampling(world: World) -> None:
    """Row 11: tracking silently missed blocks."""
    disk, honest = add_disk(world.vm, 96, filled=64), add_disk(world.vm)
    world.completed()
    disk.write(1)
    disk.write(20, 3)
    disk.write(40)
    honest.write(5)
    world.site.faults.set(
        "cbt-omit",
        vm=world.vm.name,
        disk=disk.simulated.key,
        offset=20 * CLUSTER,
        length=21 * CLUSTER,
    )
    job = world.completed()
    world.site.faults.assert_all_fired()
    world.site.faults.clear()
    told = row(job, disk)
    assert (told.read_method, told.sampling.clusters_missed) == (COMPARED, 4)
    assert row(job, honest).sampling.clusters_missed == 0
    assert codes(job) == ["CBT_MISSED_CHANGES"]
    assert disk.simulated.label in job.warnings[0].message
    assert_restores(world, job, frozen(disk, honest))

    context = world.client.get_context(job.context_id)
    assert context.tracking_distrusted_job_id == job.job_id
    disk.write(60)
    whole = world.completed()
    assert [one.read_method for one in whole.disks] == [COMPARED, COMPARED]
    assert_restores(world, whole, frozen(disk, honest))
    assert not world.client.get_context(job.context_id).tracking_distrusted_job_id
    again = world.completed()
    assert [one.read_method for one in again.disks] == [CHANGED, CHANGED]
    assert again.disks[0].sampling.clusters_sampled >= 64
    assert_restores(world, again, frozen(disk, honest))


def test_row_11_areas_that_did_not_change_are_not_sent(world: World) -> None:
    """Row 11, the other lie: tracking tells of changes that are none."""
    disk = add_disk(world.vm, filled=64)
    world.completed()
    disk.write(30)
    world.site.faults.set("cbt-extra", vm=world.vm.name)
    job = world.completed()
    world.site.faults.assert_all_fired()
    assert row(job, disk).read_method == CHANGED
    assert row(job, disk).bytes_unchanged >= 63 * CLUSTER
    assert own_length(world, job.job_id) == CLUSTER
    assert_restores(world, job, frozen(disk))


@pytest.mark.parametrize("compared", [False, True], ids=["tracking", "comparison"])
def test_row_12_trimmed_and_zeroed_areas_become_zero_clusters(world: World, compared: bool) -> None:
    """Row 12: changed-then-trimmed areas were dropped, and a restore resurrected old data."""
    disk = add_disk(world.vm, filled=64)
    full, before = world.completed(), frozen(disk)
    disk.write(10, 4)
    disk.trim(10 * CLUSTER, 4 * CLUSTER)
    disk.trim(20 * CLUSTER + 512, 2 * CLUSTER)
    disk.zero(40 * CLUSTER, 3 * CLUSTER)
    if compared:
        world.vm.reset_tracking()
    job = world.completed()
    assert row(job, disk).read_method == (COMPARED if compared else CHANGED)
    zeros = [part for part in own_clusters(world.layer(job.job_id)) if part["zero"]]
    assert sum(part["length"] for part in zeros) >= 8 * CLUSTER
    assert_restores(world, job, frozen(disk))
    assert_restores(world, full, before)


@pytest.mark.parametrize("at", [0, 1, 4095, 32768, CLUSTER - 512, CLUSTER - 1])
def test_row_13_cluster_with_one_byte_is_no_cluster_of_zeros(world: World, at: int) -> None:
    """Row 13: zeros were detected by looking at a few bytes, and written over data."""
    disk = add_disk(world.vm, 24, filled=0)
    for cluster in (0, 11):
        disk.write_bytes(cluster * CLUSTER, bytes(CLUSTER))
        disk.write_bytes(cluster * CLUSTER + at, b"\x01")
    full = world.completed()
    assert_restores(world, full, frozen(disk))
    disk.write(12)
    world.completed()
    disk.zero(12 * CLUSTER, CLUSTER)
    disk.write_bytes(12 * CLUSTER + at, b"\x80")
    assert_restores(world, world.completed(), frozen(disk))


def test_row_14_disk_without_a_change_id_is_backed_up_and_compared(world: World) -> None:
    """Row 14: a VM from a template had no change id, and every increment crashed."""
    disk = add_disk(world.vm)
    world.site.faults.set("change-id-missing", vm=world.vm.name, times=2)
    full = world.completed()
    assert (row(full, disk).read_method, row(full, disk).disk_change_id) == (ALLOCATED, "")
    disk.write(3)
    without = world.completed()
    world.site.faults.assert_all_fired()
    assert (row(without, disk).read_method, row(without, disk).disk_change_id) == (COMPARED, "")
    assert_restores(world, without, frozen(disk))
    disk.write(4)
    first_with = world.completed()  # it has one, its base has none
    assert row(first_with, disk).read_method == COMPARED
    disk.write(5)
    increment = world.completed()
    assert row(increment, disk).read_method == CHANGED
    assert_restores(world, increment, frozen(disk))


def test_row_14_tracking_is_not_enabled_over_snapshots_and_that_is_told(world: World) -> None:
    """Row 14: no change id since tracking must not be switched on while snapshots exist."""
    disk = add_disk(world.vm)
    held = world.vm.create_snapshot("before the migration")
    for method in (ALLOCATED, COMPARED):
        disk.write(6)
        job = world.completed()
        assert row(job, disk).read_method == method
        assert "CHANGE_TRACKING_NOT_ENABLED" in codes(job)
        assert not world.vm.change_tracking_enabled
        assert_restores(world, job, frozen(disk))
    assert world.vm.snapshots == [held]


@pytest.mark.parametrize("tracking", REVERTED_TRACKING)
def test_row_15_all_disks_are_compared_after_a_revert(
    world: World, tracking: RevertedTracking
) -> None:
    """Row 15: a VM was reverted to a snapshot between backups, and increments were wrong."""
    disks = [add_disk(world.vm), add_disk(world.vm)]
    world.completed()
    held, then = world.vm.create_snapshot("before the update"), frozen(*disks)
    for disk in disks:
        disk.write(3, 8)
    world.completed()
    for disk in disks:
        disk.write(15, 2)
    world.vm.revert(held, tracking=tracking)
    world.vm.power("poweredOn")
    for disk in disks:
        disk.content[:] = then[disk.uuid]
        disk.write(40)
    job = world.completed()
    assert [one.read_method for one in job.disks] == [COMPARED, COMPARED]
    assert codes(job).count("COMPARED_INSTEAD_OF_TRACKING") == 2
    assert_restores(world, job, frozen(*disks))
    assert [one.name for one in world.vm.snapshots] == ["before the update"]


@pytest.mark.parametrize("tracking", REVERTED_TRACKING)
def test_row_15_revert_to_a_snapshot_made_since_the_last_backup_loses_no_change(
    world: World, tracking: RevertedTracking
) -> None:
    """Row 15: what changed up to the snapshot is forgotten when the map is empty afterwards."""
    disk = add_disk(world.vm)
    world.completed()
    disk.write(3, 8)
    held, then = world.vm.create_snapshot("before the update"), disk.frozen()
    disk.write(15, 2)
    world.vm.revert(held, tracking=tracking)
    world.vm.power("poweredOn")
    disk.content[:] = then
    disk.write(40)
    job = world.completed()
    assert row(job, disk).read_method == COMPARED
    assert "'before the update'" in row(job, disk).read_reason
    assert own_length(world, job.job_id) == 9 * CLUSTER
    assert_restores(world, job, frozen(disk))


def own_length(world: World, job_id: str) -> int:
    """Bytes of guest disk that a layer holds itself."""
    return sum(part["length"] for part in own_clusters(world.layer(job_id)))
