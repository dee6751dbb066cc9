"""Snapshots: the tree, what is frozen, removal and reverting."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.contracts.vsphere.calls import disks_of, finish, read, snapshot_of

pytestmark = pytest.mark.hostile


def names(nodes: Any) -> Any:
    """The tree's names: [(name, [children])]."""
    return [(one.name, names(one.childSnapshotList)) for one in nodes]


def test_snapshot_is_the_root_and_the_current_one(vm: Any) -> None:
    made = snapshot_of(vm, "one", "before the change")
    tree = vm.snapshot
    (root,) = tree.rootSnapshotList
    assert tree.currentSnapshot == made
    assert root.snapshot == made
    assert root.vm == vm
    assert (root.name, root.description) == ("one", "before the change")
    assert root.id > 0
    assert not root.quiesced
    assert root.state == "poweredOff"  # no memory in it
    assert abs(datetime.now(UTC) - root.createTime) < timedelta(minutes=5)
    assert list(vm.rootSnapshot) == [made]
    assert made.vm == vm


def test_next_snapshot_is_the_child_of_the_current_one(vm: Any) -> None:
    one = snapshot_of(vm, "one")
    two = snapshot_of(vm, "two")
    assert names(vm.snapshot.rootSnapshotList) == [("one", [("two", [])])]
    assert vm.snapshot.currentSnapshot == two
    assert list(one.childSnapshot) == [two]
    assert list(two.childSnapshot) == []
    first, second = vm.snapshot.rootSnapshotList[0], vm.snapshot.rootSnapshotList[0]
    assert first.id < second.childSnapshotList[0].id


@pytest.mark.parametrize("name", ["two words", "a/b%2f", "<&\">'", "schön – 雪"])
def test_names_come_back_as_given(vm: Any, name: str) -> None:
    snapshot_of(vm, name, name)
    (root,) = vm.snapshot.rootSnapshotList
    assert (root.name, root.description) == (name, name)


def test_names_may_repeat(vm: Any) -> None:
    snapshot_of(vm, "same")
    snapshot_of(vm, "same")
    assert names(vm.snapshot.rootSnapshotList) == [("same", [("same", [])])]


def test_removed_snapshot_leaves_its_children(vm: Any) -> None:
    one, two, three = (snapshot_of(vm, name) for name in ("one", "two", "three"))
    finish(two.RemoveSnapshot_Task(False, True))
    assert names(vm.snapshot.rootSnapshotList) == [("one", [("three", [])])]
    assert vm.snapshot.currentSnapshot == three
    finish(one.RemoveSnapshot_Task(False, True))
    assert names(vm.snapshot.rootSnapshotList) == [("three", [])]


def test_current_snapshot_is_the_parent_of_the_removed_one(vm: Any) -> None:
    one, two = snapshot_of(vm, "one"), snapshot_of(vm, "two")
    finish(two.RemoveSnapshot_Task(False, True))
    assert vm.snapshot.currentSnapshot == one


def test_children_go_too_when_asked(vm: Any) -> None:
    one, two = snapshot_of(vm, "one"), snapshot_of(vm, "two")
    finish(one.RemoveSnapshot_Task(True, True))
    assert read(vm, "snapshot") is None
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        two.RemoveSnapshot_Task(False, True)


def test_last_removal_leaves_no_tree(vm: Any) -> None:
    made = snapshot_of(vm, "one")
    finish(made.RemoveSnapshot_Task(False, True))
    assert read(vm, "snapshot") is None
    assert list(vm.rootSnapshot) == []
    assert not vm.runtime.consolidationNeeded
    with pytest.raises(vmodl.fault.ManagedObjectNotFound) as gone:
        made.RemoveSnapshot_Task(False, True)
    assert gone.value.obj == made


def test_all_snapshots_go_together(vm: Any) -> None:
    snapshot_of(vm, "one")
    snapshot_of(vm, "two")
    finish(vm.RemoveAllSnapshots_Task())
    assert read(vm, "snapshot") is None
    finish(vm.RemoveAllSnapshots_Task())  # none left: nothing to do, no fault


def test_snapshot_keeps_the_configuration_of_its_moment(vm: Any) -> None:
    old_name = vm.name
    made = snapshot_of(vm, "one")
    finish(vm.ReconfigVM_Task(vim.vm.ConfigSpec(name="renamed")))
    assert made.config.name == old_name
    assert vm.config.name == "renamed"
    live = disks_of(vm.config.hardware.device)
    frozen = disks_of(made.config.hardware.device)
    assert [one.key for one in frozen] == [one.key for one in live]
    assert [one.capacityInBytes for one in frozen] == [one.capacityInBytes for one in live]


def test_disks_go_on_in_links_above_the_frozen_ones(vm: Any) -> None:
    before = [one.backing.fileName for one in disks_of(vm.config.hardware.device)]
    made = snapshot_of(vm, "one")
    frozen = [one.backing for one in disks_of(made.config.hardware.device)]
    live = [one.backing for one in disks_of(vm.config.hardware.device)]
    assert [one.fileName for one in frozen] == before
    assert not {one.fileName for one in live} & set(before)
    assert [one.parent.fileName for one in live] == before
    finish(made.RemoveSnapshot_Task(False, True))
    assert [one.backing.fileName for one in disks_of(vm.config.hardware.device)] == before


def test_revert_makes_the_snapshot_current(vm: Any) -> None:
    one = snapshot_of(vm, "one")
    snapshot_of(vm, "two")
    finish(one.RevertToSnapshot_Task())
    assert vm.snapshot.currentSnapshot == one
    assert names(vm.snapshot.rootSnapshotList) == [("one", [("two", [])])]
    snapshot_of(vm, "three")
    assert names(vm.snapshot.rootSnapshotList) == [("one", [("two", []), ("three", [])])]


def test_snapshot_with_memory_says_so_and_reverts_to_a_running_vm(vm: Any) -> None:
    made = finish(vm.CreateSnapshot_Task("warm", "", True, False))
    assert vm.snapshot.rootSnapshotList[0].state == "poweredOn"
    finish(made.RevertToSnapshot_Task())
    assert vm.runtime.powerState == "poweredOn"


def test_snapshot_without_memory_reverts_to_a_vm_that_is_off(vm: Any) -> None:
    made = snapshot_of(vm, "cold")
    finish(made.RevertToSnapshot_Task())
    assert vm.runtime.powerState == "poweredOff"


def test_newer_call_makes_a_snapshot_too(vm: Any) -> None:
    made = finish(vm.CreateSnapshotEx_Task("newer", "by the newer call", False, None))
    assert vm.snapshot.currentSnapshot == made
    assert vm.snapshot.rootSnapshotList[0].name == "newer"


def test_consolidation_without_need_changes_nothing(vm: Any) -> None:
    before = [one.backing.fileName for one in disks_of(vm.config.hardware.device)]
    finish(vm.ConsolidateVMDisks_Task())
    assert [one.backing.fileName for one in disks_of(vm.config.hardware.device)] == before
    assert not vm.runtime.consolidationNeeded


def test_tracking_begins_with_the_next_snapshot(vm: Any) -> None:
    finish(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    assert vm.config.changeTrackingEnabled
    made = snapshot_of(vm, "one")
    (disk, *_) = disks_of(made.config.hardware.device)
    uuid, _, sequence = disk.backing.changeId.partition("/")
    assert uuid
    assert int(sequence) >= 0
    answer = vm.QueryChangedDiskAreas(made, disk.key, 0, disk.backing.changeId)
    assert answer.startOffset == 0
    assert 0 < answer.length <= disk.capacityInBytes
    assert list(answer.changedArea) == []
