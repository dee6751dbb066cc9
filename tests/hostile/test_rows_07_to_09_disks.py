"""Rows 7 to 9 of the failures seen in the field: which disk is which, and how large it is."""

import pytest

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
from tests.hostile.layers import backing_file, image_info, own_clusters
from tests.model.disks import CLUSTER
from tests.model.world import World

pytestmark = pytest.mark.hostile


def test_row_07_disks_are_restored_by_their_real_keys_and_sizes(world: World) -> None:
    """Row 7: both disks were mapped to key 2000, and the wrong one was overwritten."""
    disks = [
        add_disk(world.vm, 40, key=2000),
        add_disk(world.vm, 70, controller=1, key=16000, tail=512),
        add_disk(world.vm, 24, controller=2, key=31000),
    ]
    for disk in disks:
        disk.write(7)
    job = world.completed()
    for disk in disks:
        assert row(job, disk).vmware_disk_key == disk.simulated.key
        assert row(job, disk).capacity_bytes == len(disk.content)
    assert_restores(world, job, frozen(*disks))
    disks[1].write(69)
    increment = world.completed()
    assert [one.read_method for one in increment.disks] == [CHANGED] * 3
    assert_restores(world, increment, frozen(*disks))


@pytest.mark.parametrize("more", [512, CLUSTER - 512, 40 * CLUSTER, 512 << 20])
def test_row_08_grown_disk_is_compared_and_its_layer_has_the_new_size(
    world: World, more: int
) -> None:
    """Row 8: a disk had grown since the full, and the overlay kept the old size."""
    disk = add_disk(world.vm, 48, tail=512)
    full, before = world.completed(), frozen(disk)
    capacity = len(disk.content) + more
    disk.grow(capacity)
    disk.write_bytes(capacity - 512, b"the end".ljust(512, b"."))
    grown = world.completed()
    told = row(grown, disk)
    assert (told.read_method, told.base_job_id) == (COMPARED, full.job_id)
    assert "grew" in told.read_reason
    assert codes(grown) == ["COMPARED_INSTEAD_OF_TRACKING"]
    layer = world.layer(grown.job_id)
    assert image_info(layer)["virtual-size"] == capacity
    assert sum(part["length"] for part in own_clusters(layer)) <= 2 * CLUSTER
    assert_restores(world, grown, frozen(disk))
    assert_restores(world, full, before)
    disk.write(3)
    after = world.completed()
    assert row(after, disk).read_method == CHANGED
    assert_restores(world, after, frozen(disk))


def test_row_09_disks_are_known_by_uuid_and_key_when_others_come_and_go(world: World) -> None:
    """Row 9: disks were added, removed and re-ordered between backups."""
    gone, second, third = (add_disk(world.vm) for _ in range(3))
    first_key = gone.simulated.key
    full, before = world.completed(), frozen(gone, second, third)
    world.vm.remove_disk(gone.simulated)
    second.write(3)
    third.write(5)
    fewer = world.completed()
    assert codes(fewer) == ["DISK_GONE"]
    assert f"key {first_key}" in fewer.warnings[0].message
    assert [one.read_method for one in fewer.disks] == [CHANGED, CHANGED]
    assert row(fewer, second).disk_index == 0
    assert row(fewer, second).base_disk_id == row(full, second).disk_id
    assert_restores(world, fewer, frozen(second, third))
    # In the removed one's place, with its key: another disk all the same.
    new = add_disk(world.vm, key=first_key)
    third.write(9)
    more = world.completed()
    assert (row(more, new).disk_index, row(more, new).read_method) == (0, ALLOCATED)
    assert backing_file(world.layer(more.job_id, 0)) is None
    assert row(more, third).base_disk_id == row(fewer, third).disk_id
    assert row(more, third).read_method == CHANGED
    assert_restores(world, more, frozen(new, second, third))
    assert_restores(world, full, before)


def test_row_09_disks_that_change_places_are_not_taken_for_each_other(world: World) -> None:
    """Row 9: disks were re-ordered between backups, and each went on with the other's chain."""
    first, second, third = (add_disk(world.vm, 48) for _ in range(3))
    world.completed()
    world.vm.reorder_disks([second.simulated, first.simulated, third.simulated])
    for disk in (first, second, third):
        disk.write(4)
    job = world.completed()
    assert [one.disk_uuid for one in job.disks] == [second.uuid, first.uuid, third.uuid]
    assert [one.read_method for one in job.disks] == [ALLOCATED, ALLOCATED, CHANGED]
    assert_restores(world, job, frozen(first, second, third))


def test_row_09_disk_behind_another_controller_is_read_anew_and_stays_whole(world: World) -> None:
    """Row 9: a disk came back under another device key."""
    moved, other = add_disk(world.vm, 48), add_disk(world.vm, 48)
    full, before = world.completed(), frozen(moved, other)
    world.vm.move_disk(moved.simulated, controller=1)
    moved.write(3)
    other.write(5)
    job = world.completed()
    assert (row(job, moved).disk_index, row(job, moved).read_method) == (1, ALLOCATED)
    assert (row(job, other).disk_index, row(job, other).read_method) == (0, CHANGED)
    assert "DISK_GONE" in codes(job)
    assert_restores(world, job, frozen(moved, other))
    assert_restores(world, full, before)
