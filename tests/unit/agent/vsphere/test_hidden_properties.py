"""What vSphere does not show is not the same as what is not there."""

import pytest
from structlog.testing import capture_logs

from agent.vsphere import snapshot_removal
from agent.vsphere.errors import (
    DisksNotConsolidated,
    PermissionMissing,
    SnapshotNotRemoved,
    VsphereError,
    VsphereFault,
)
from agent.vsphere.models import JobSnapshot
from agent.vsphere.properties import NEVER_ENDED
from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite

pytestmark = pytest.mark.hostile

MIB = 1 << 20
OWNER = "agent-1"


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    return simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=MIB)])


def take(vsphere: VsphereSite, vm: SimulatedVm) -> JobSnapshot:
    return vsphere.take_snapshot(
        job_id="1", vm_moref=vm.moid, instance_uuid="", quiesce=False, owner=OWNER
    )


@pytest.mark.parametrize("fault", ["HostCommunication", "NoPermission"])
def test_removal_that_failed_is_not_done_because_no_snapshots_are_shown(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 2)
    snapshot = take(vsphere, vm)
    failing = simulated.faults.set(
        "method-fail", vm=vm.name, method="RemoveSnapshot_Task", fault="HostCommunication"
    )
    hidden = simulated.faults.set("property-hidden", vm=vm.name, path="snapshot", fault=fault)
    with pytest.raises(SnapshotNotRemoved, match=r"told to fail.*or may be: ") as caught:
        vsphere.remove_snapshot(snapshot)
    assert not isinstance(caught.value, DisksNotConsolidated)
    assert len(vm.snapshots) == 1
    assert failing.fired == 2  # it may pass: it was tried again
    assert hidden.fired == 2
    with pytest.raises(VsphereError):
        vsphere.find_leftovers(set, OWNER, vm.moid)
    simulated.faults.clear()
    vsphere.remove_snapshot(snapshot)
    assert vm.snapshots == []


def test_removal_that_went_well_is_not_believed_while_no_snapshots_are_shown(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 1)
    snapshot = take(vsphere, vm)
    simulated.faults.set("property-hidden", vm=vm.name, path="snapshot", times=1)
    with pytest.raises(SnapshotNotRemoved):
        vsphere.remove_snapshot(snapshot)
    simulated.faults.assert_all_fired()


def test_snapshot_that_vsphere_says_is_gone_is_gone_whatever_is_shown(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    vm.remove_all_snapshots()
    hidden = simulated.faults.set("property-hidden", vm=vm.name, path="snapshot")
    vsphere.remove_snapshot(snapshot)
    assert hidden.fired == 1


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("HostCommunication", VsphereFault, "HostCommunication"),
        ("NoPermission", PermissionMissing, "may not read"),
    ],
)
def test_vm_whose_snapshots_are_not_shown_counts_not_as_one_without(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    fault: str,
    kind: type[VsphereError],
    text: str,
) -> None:
    vm.create_snapshot("by hand")
    hidden = simulated.faults.set("property-hidden", vm=vm.name, path="snapshot", fault=fault)
    with pytest.raises(kind, match=text):
        take(vsphere, vm)
    assert hidden.fired == 1
    assert not vm.change_tracking_enabled
    assert simulated.faults.calls("ReconfigVM_Task") == 0
    assert [one.name for one in vm.snapshots] == ["by hand"]


def test_vm_that_is_not_shown_hides_no_leftover_of_another(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    other = simulated.add_vm("other", disks=[DiskSpec(capacity_bytes=MIB)])
    take(vsphere, vm)
    take(vsphere, other)
    hidden = simulated.faults.set("property-hidden", vm=vm.name, path="snapshot")
    assert [one.vm_moref for one in vsphere.find_leftovers(set, OWNER)] == [other.moid]
    assert hidden.fired == 1


def test_consolidation_is_tried_once_in_one_removal(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    locked = simulated.faults.set("consolidation-needed", vm=vm.name, times=2)
    with pytest.raises(DisksNotConsolidated):
        vsphere.remove_snapshot(snapshot)
    assert simulated.faults.calls("ConsolidateVMDisks_Task") == 1
    assert locked.fired == 1
    assert vsphere.merge_disks(vm.moid, NEVER_ENDED) == ""
    assert simulated.faults.calls("ConsolidateVMDisks_Task") == 2
    assert vsphere.merge_disks(vm.moid, NEVER_ENDED) == ""  # nothing is left to merge
    assert simulated.faults.calls("ConsolidateVMDisks_Task") == 2
    assert not vm.consolidation_needed


def test_disks_that_need_consolidation_are_told_once_for_as_long_as_they_do(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    with capture_logs() as logs:
        vsphere.find_leftovers(set, OWNER)
        assert logs == []
        for _ in range(2):
            simulated.faults.set("consolidation-needed", vm=vm.name)
            vsphere.find_leftovers(set, OWNER)
            vsphere.find_leftovers(set, OWNER)
            simulated.faults.clear()
            vm.consolidate()
            vsphere.find_leftovers(set, OWNER)
    told = [(line["event"], line["vm"]) for line in logs]
    assert told == [("disks_need_consolidation", vm.moid)] * 2
