"""Rows 1 to 6 of the failures seen in the field: chains, bases and change ids."""

from itertools import pairwise

import pytest

from sendense import BackupStatus, BackupType, FailedPrecondition
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
from tests.hostile.layers import backing_file
from tests.model.world import World, wait_until

pytestmark = pytest.mark.hostile


def test_row_01_increments_back_onto_the_layer_whose_change_id_was_used(world: World) -> None:
    """Row 1: the second increment lacked the first's blocks, since all backed onto the full."""
    disk = add_disk(world.vm)
    jobs, contents = [], []
    for cluster in (0, 3, 7, 3):
        disk.write(cluster, 2)
        contents.append(frozen(disk))
        jobs.append(world.completed())
    rows = [row(job, disk) for job in jobs]
    assert [one.read_method for one in rows] == [ALLOCATED, CHANGED, CHANGED, CHANGED]
    for base, increment in pairwise(rows):
        assert increment.base_disk_id == base.disk_id
        assert backing_file(world.layer(increment.job_id)) == world.layer(base.job_id).resolve()
    for job, content in zip(jobs, contents, strict=True):
        assert_restores(world, job, content)


def test_row_02_second_full_reads_all_and_has_no_base(world: World) -> None:
    """Row 2: a second "full" read only changes, into an image without a base."""
    disk = add_disk(world.vm, filled=32)
    world.completed(full=True)
    disk.write(5)
    again = world.completed(full=True)
    assert again.backup_type == BackupType.FULL
    assert (row(again, disk).read_method, row(again, disk).base_disk_id) == (ALLOCATED, 0)
    assert row(again, disk).bytes_read >= 32 * 65536
    assert backing_file(world.layer(again.job_id)) is None
    assert_restores(world, again, frozen(disk))


def test_row_03_change_id_is_of_the_same_vm_and_repository_not_of_the_name(world: World) -> None:
    """Row 3: another repository's, or another VM's of the same name, change id was used."""
    second = world.client.create_repository("second", world.folder / "second")
    namesake = world.site.add_vm(world.vm.name)
    world.wait_agent()
    disk, other = add_disk(world.vm), add_disk(namesake)
    here = world.completed()
    disk.write(1)
    there = world.completed(repository=second.name)
    of_namesake = world.completed(vm=namesake)
    assert row(there, disk).read_method == row(of_namesake, other).read_method == ALLOCATED
    disk.write(2)
    increment = world.completed()
    assert row(increment, disk).base_job_id == here.job_id, "not the newer one elsewhere"
    assert row(increment, disk).read_method == CHANGED
    assert_restores(world, increment, frozen(disk))
    disk.write(3)
    increment = world.completed(repository=second.name)
    assert row(increment, disk).base_job_id == there.job_id
    assert_restores(world, increment, frozen(disk))
    assert_restores(world, of_namesake, frozen(other))


def test_row_04_a_reset_of_one_disk_is_told_and_leaves_the_others_incremental(
    world: World,
) -> None:
    """Row 4: disk 1 was looked up by index 0 and reported "tracking reset" forever."""
    disks = [add_disk(world.vm) for _ in range(3)]
    world.completed()
    for disk in disks:
        disk.write(4)
    calm = world.completed()
    assert [one.read_method for one in calm.disks] == [CHANGED] * 3
    assert codes(calm) == []
    world.site.faults.set("change-id-uuid", vm=world.vm.name, disk=disks[1].simulated.key, times=1)
    for disk in disks:
        disk.write(9)
    reset = world.completed()
    world.site.faults.assert_all_fired()
    assert [row(reset, one).read_method for one in disks] == [CHANGED, COMPARED, CHANGED]
    assert codes(reset) == ["COMPARED_INSTEAD_OF_TRACKING"]
    assert reset.warnings[0].disk_label == disks[1].simulated.label
    assert_restores(world, reset, frozen(*disks))
    after = world.completed()
    assert [one.read_method for one in after.disks] == [CHANGED] * 3, "a reset is over after once"
    assert codes(after) == []


def test_row_05_failed_backup_is_no_parent(world: World) -> None:
    """Row 5: a failed backup became a parent."""
    disks = [add_disk(world.vm), add_disk(world.vm)]
    full = world.completed()
    for disk in disks:
        disk.write(2, 3)
    stalled = world.site.faults.set(
        "nfc-stall", vm=world.vm.name, disk=disks[1].simulated.key, times=1
    )
    job_id = world.start()
    assert stalled.wait_fired(30)
    world.client.cancel_backup(job_id, reason="a test ends it")
    assert world.wait(job_id).status == BackupStatus.CANCELLED
    world.site.faults.clear()
    for disk in disks:
        disk.write(20)
    increment = world.completed()
    assert {one.base_job_id for one in increment.disks} == {full.job_id}
    assert [one.read_method for one in increment.disks] == [CHANGED, CHANGED]
    assert_restores(world, increment, frozen(*disks))


def test_row_06_job_is_completed_with_its_last_disk_not_its_first(world: World) -> None:
    """Row 6: a job was marked completed after its first disk."""
    disks = [add_disk(world.vm), add_disk(world.vm)]
    world.site.faults.set("task-stall", vm=world.vm.name, method="RemoveSnapshot_Task")
    slow = world.site.faults.set(
        "nfc-stall", vm=world.vm.name, disk=disks[1].simulated.key, times=1
    )
    job_id = world.start()
    assert slow.wait_fired(30)

    def first_is_there() -> bool:
        found = world.client.get_backup(job_id).disks
        return bool(found) and found[0].bytes_stored > 0

    wait_until("the first disk is sealed", first_is_there)
    assert world.client.get_backup(job_id).status == BackupStatus.RUNNING
    with pytest.raises(FailedPrecondition) as refused:
        world.restore(job_id, 0)
    assert refused.value.reason == "NOT_A_RESTORE_POINT"
    world.site.faults.clear()
    job = world.wait(job_id)
    assert job.status == BackupStatus.COMPLETED, job
    assert_restores(world, job, frozen(*disks))
