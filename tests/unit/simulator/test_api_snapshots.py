"""The vSphere API, judged by pyVmomi: snapshots and change tracking."""

from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.simulator.conftest import MIB, frozen_disks, take_snapshot


def test_increment_through_the_api_in_slices(
    api: Any, site: SimulatedSite, vm: SimulatedVm, seen_vm: Any
) -> None:
    site.faults.set("cbt-slice-bytes", bytes=5 * MIB)
    WaitForTask(seen_vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    assert seen_vm.config.changeTrackingEnabled
    first = take_snapshot(seen_vm, "one")
    since = {disk.key: disk.backing.changeId for disk in frozen_disks(first)}
    vm.disks[0].write(4 * MIB, b"x" * 2 * MIB)
    second = take_snapshot(seen_vm, "two")
    found: list[tuple[int, int]] = []
    slices = []
    offset = 0
    while offset < 16 * MIB:
        part = seen_vm.QueryChangedDiskAreas(second, 2000, offset, since[2000])
        assert part.startOffset == offset
        slices.append(part.length)
        found += [(one.start, one.length) for one in part.changedArea]
        offset += part.length
    assert slices == [5 * MIB, 5 * MIB, 5 * MIB, MIB]
    assert found == [(4 * MIB, MIB), (5 * MIB, MIB)]
    with pytest.raises(vim.fault.FileFault):
        seen_vm.QueryChangedDiskAreas(second, 2000, 16 * MIB, since[2000])
    with pytest.raises(vim.fault.FileFault):
        seen_vm.QueryChangedDiskAreas(None, 2000, 0, since[2000])
    with pytest.raises(vim.fault.FileFault):
        seen_vm.QueryChangedDiskAreas(second, 2000, 0, since[2016])
    with pytest.raises(vmodl.fault.InvalidArgument):
        seen_vm.QueryChangedDiskAreas(second, 9999, 0, since[2000])
    assert not seen_vm.QueryChangedDiskAreas(second, 2016, 0, since[2016]).changedArea


def test_slices_are_limited_in_areas_too(
    api: Any, site: SimulatedSite, vm: SimulatedVm, seen_vm: Any
) -> None:
    site.faults.set("cbt-slice-bytes", areas=2)
    vm.reconfigure(change_tracking_enabled=True)
    for number in range(5):
        vm.disks[0].write(number * 128 * 1024, b"x")
    snapshot = take_snapshot(seen_vm, "one")
    part = seen_vm.QueryChangedDiskAreas(snapshot, 2000, 0, "*")
    assert [one.start for one in part.changedArea] == [0, 128 * 1024]
    assert part.length == 256 * 1024


@pytest.mark.parametrize(("star", "areas"), [("whole", [(0, 16 * MIB)]), ("fault", None)])
def test_star_answers_as_other_hosts_do(
    api: Any, site: SimulatedSite, vm: SimulatedVm, seen_vm: Any, star: Any, areas: Any
) -> None:
    site.behaviour.star = star
    vm.reconfigure(change_tracking_enabled=True)
    snapshot = take_snapshot(seen_vm, "one")
    if areas is None:
        with pytest.raises(vim.fault.FileFault):
            seen_vm.QueryChangedDiskAreas(snapshot, 2000, 0, "*")
        return
    part = seen_vm.QueryChangedDiskAreas(snapshot, 2000, 0, "*")
    assert [(one.start, one.length) for one in part.changedArea] == areas


def test_snapshot_shows_disks_as_frozen_and_the_tree(
    api: Any, vm: SimulatedVm, seen_vm: Any
) -> None:
    vm.add_disk(DiskSpec(MIB, mode="independent_persistent"))
    vm.add_disk(DiskSpec(MIB, physical_rdm=True))
    one = take_snapshot(seen_vm, "one")
    two = take_snapshot(seen_vm, "two")
    files = {disk.key: disk.backing.fileName for disk in frozen_disks(two)}
    assert files == {
        2000: "[datastore1] db 1/db 1-000001.vmdk",
        2001: "[datastore1] db 1/db 1_2.vmdk",
        2002: "[datastore1] db 1/db 1_3.vmdk",
        2016: "[datastore1] db 1/db 1_1-000001.vmdk",
    }
    backings = [disk.backing for disk in frozen_disks(two)]
    assert [one.diskMode for one in backings] == [
        "persistent",
        "independent_persistent",
        None,
        "persistent",
    ]
    assert backings[2].compatibilityMode == "physicalMode"
    tree = seen_vm.snapshot
    assert tree.currentSnapshot == two
    assert tree.rootSnapshotList[0].snapshot == one
    assert tree.rootSnapshotList[0].childSnapshotList[0].name == "two"
    WaitForTask(one.RemoveSnapshot_Task(False, True))
    assert [node.name for node in seen_vm.snapshot.rootSnapshotList] == ["two"]
    assert frozen_disks(two)[0].backing.fileName == "[datastore1] db 1/db 1.vmdk"
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        one.RemoveSnapshot_Task(False, True)


def test_quiesce_without_tools_fails_and_leaves_no_snapshot(
    api: Any, vm: SimulatedVm, seen_vm: Any
) -> None:
    vm.tools_running = False
    with pytest.raises(vim.fault.FilesystemQuiesceFault):
        take_snapshot(seen_vm, "one", quiesce=True)
    assert vm.snapshots == []
    assert take_snapshot(seen_vm, "two").vm == seen_vm


def test_multi_writer_disk_refuses_snapshots(api: Any, vm: SimulatedVm, seen_vm: Any) -> None:
    vm.add_disk(DiskSpec(MIB, multi_writer=True))
    with pytest.raises(vim.fault.SnapshotFault):
        take_snapshot(seen_vm, "one")


def test_locked_disks_leave_consolidation_needed_until_it_is_done(
    api: Any, vm: SimulatedVm, seen_vm: Any
) -> None:
    vm.reader_patience_s = 0
    snapshot = take_snapshot(seen_vm, "one")
    vm.disks[0].lease()
    with pytest.raises(vim.fault.FileLocked):
        WaitForTask(snapshot.RemoveSnapshot_Task(False, True))
    assert seen_vm.snapshot is None
    assert seen_vm.runtime.consolidationNeeded
    vm.disks[0].release()
    WaitForTask(seen_vm.ConsolidateVMDisks_Task())
    assert not seen_vm.runtime.consolidationNeeded


def test_revert_and_power_tasks_do_what_they_say(api: Any, vm: SimulatedVm, seen_vm: Any) -> None:
    vm.disks[0].write(0, b"old")
    snapshot = take_snapshot(seen_vm, "one")
    vm.disks[0].write(0, b"new")
    WaitForTask(snapshot.RevertToSnapshot_Task())
    assert vm.disks[0].read(0, 3) == b"old"
    assert seen_vm.runtime.powerState == "poweredOff"
    WaitForTask(seen_vm.PowerOnVM_Task())
    assert seen_vm.runtime.powerState == "poweredOn"
    with pytest.raises(vim.fault.InvalidPowerState):
        WaitForTask(seen_vm.PowerOnVM_Task())
