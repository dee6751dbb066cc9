"""Changed areas of the simulated host, in slices, and when it cannot tell."""

import pytest

from agent.areas import Area
from agent.vsphere.errors import ChangeTrackingUnusable
from agent.vsphere.models import JobSnapshot
from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite

K = 65536
CAPACITY = 100 * K + 1024


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    return simulated.add_vm(
        "pg", disks=[DiskSpec(capacity_bytes=CAPACITY), DiskSpec(capacity_bytes=2 * K)]
    )


def snapshot_of(vsphere: VsphereSite, vm: SimulatedVm, job_id: str) -> JobSnapshot:
    return vsphere.take_snapshot(
        job_id=job_id,
        vm_moref=vm.moid,
        instance_uuid=vm.instance_uuid,
        quiesce=False,
        owner="agent-1",
    )


def base_of(vsphere: VsphereSite, vm: SimulatedVm) -> JobSnapshot:
    snapshot = snapshot_of(vsphere, vm, "base")
    vsphere.remove_snapshot(snapshot)
    return snapshot


@pytest.mark.parametrize("slice_bytes", [7 * K, K, 200 * K])
def test_changes_are_read_to_the_end_whatever_the_slices(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, slice_bytes: int
) -> None:
    simulated.faults.set("cbt-slice-bytes", bytes=slice_bytes)
    base = base_of(vsphere, vm)
    disk = vm.disks[0]
    disk.write(5, b"a")
    disk.write(6 * K, b"b" * 3 * K)
    disk.zero(50 * K, K)
    disk.write(CAPACITY - 1, b"z")
    snapshot = snapshot_of(vsphere, vm, "next")
    disk.write(30 * K, b"after the snapshot")
    areas = vsphere.changed_areas(snapshot, snapshot.disks[0], base.disks[0].change_id)
    assert areas == [Area(0, K), Area(6 * K, 3 * K), Area(50 * K, K), Area(100 * K, 1024)]
    assert vsphere.changed_areas(snapshot, snapshot.disks[1], base.disks[1].change_id) == []


def test_many_areas_in_short_answers_are_all_read(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    simulated.faults.set("cbt-slice-bytes", areas=3)
    base = base_of(vsphere, vm)
    for number in range(0, 100, 2):
        vm.disks[0].write(number * K, b"x")
    snapshot = snapshot_of(vsphere, vm, "next")
    areas = vsphere.changed_areas(snapshot, snapshot.disks[0], base.disks[0].change_id)
    assert areas == [Area(number * K, K) for number in range(0, 100, 2)]


def test_reset_tracking_is_unusable(vsphere: VsphereSite, vm: SimulatedVm) -> None:
    base = base_of(vsphere, vm)
    vm.reset_tracking()
    snapshot = snapshot_of(vsphere, vm, "next")
    with pytest.raises(ChangeTrackingUnusable, match="reset") as caught:
        vsphere.changed_areas(snapshot, snapshot.disks[0], base.disks[0].change_id)
    assert caught.value.code == "CHANGE_TRACKING_UNUSABLE"


def test_revert_between_backups_is_unusable(vsphere: VsphereSite, vm: SimulatedVm) -> None:
    take = snapshot_of(vsphere, vm, "first")
    (made,) = vm.snapshots
    vm.disks[0].write(0, b"later")
    vm.revert(made)
    snapshot = snapshot_of(vsphere, vm, "next")
    with pytest.raises(ChangeTrackingUnusable):
        vsphere.changed_areas(snapshot, snapshot.disks[0], take.disks[0].change_id)


def test_id_that_the_host_does_not_know_is_unusable(
    vsphere: VsphereSite, vm: SimulatedVm, simulated: SimulatedSite
) -> None:
    base = base_of(vsphere, vm)
    snapshot = snapshot_of(vsphere, vm, "next")
    simulated.faults.fail_method("QueryChangedDiskAreas")
    with pytest.raises(ChangeTrackingUnusable, match="SystemError"):
        vsphere.changed_areas(snapshot, snapshot.disks[0], base.disks[0].change_id)
    simulated.faults.assert_all_fired()


def test_untracked_disk_is_unusable(vsphere: VsphereSite, vm: SimulatedVm) -> None:
    vm.create_snapshot("by hand")
    snapshot = snapshot_of(vsphere, vm, "next")
    with pytest.raises(ChangeTrackingUnusable, match="not tracked"):
        vsphere.changed_areas(snapshot, snapshot.disks[0], "52 00/1")
