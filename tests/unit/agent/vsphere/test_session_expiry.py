"""Row 28 of the field's failures: sessions end at whatever call a backup makes next."""

from itertools import count

import pytest

from agent.areas import split_extents, whole_disk
from agent.cancellation import Cancellation
from agent.vsphere.errors import SessionLost, SnapshotNotRemoved
from agent.vsphere.models import Leftover
from agent.vsphere.properties import NEVER_ENDED
from agent.vsphere.site import VsphereSite
from agent.vsphere.snapshot_tree import description_for
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite

pytestmark = pytest.mark.hostile

MIB = 1 << 20
OWNER = "agent-1"
METHODS_OF_A_BACKUP = (
    "ConsolidateVMDisks_Task",
    "ContinueRetrievePropertiesEx",
    "CreateContainerView",
    "CreateFilter",
    "CreatePropertyCollector",
    "CreateSnapshot_Task",
    "CurrentTime",
    "DestroyPropertyCollector",
    "DestroyView",
    "NfcGetVmFiles",
    "QueryChangedDiskAreas",
    "ReconfigVM_Task",
    "RemoveSnapshot_Task",
    "RetrievePropertiesEx",
    "WaitForUpdatesEx",
)


def vm_to_back_up(simulated: SimulatedSite) -> SimulatedVm:
    """One with all that makes the agent ask: a leftover, disks apart, no tracking."""
    vm = simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=MIB)])
    vm.disks[0].write(0, b"what is read")
    vm.create_snapshot("sendense-died", description_for(OWNER, "paris", "died"))
    return vm


def back_up(simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm) -> None:
    """What jobs, sweeps and inventories ask of vSphere, with a look at each answer."""
    (info,) = [one for one in vsphere.virtual_machines() if one.moref == vm.moid]
    assert [one.name for one in info.snapshots] == ["sendense-died"]
    leftovers = vsphere.find_leftovers(set, OWNER)
    assert leftovers == [Leftover(vm.moid, vm.snapshots[0].moid, "sendense-died")]
    vsphere.remove_leftover(leftovers[0], NEVER_ENDED)
    assert vm.snapshots == []
    apart = simulated.faults.set("consolidation-needed", vm=vm.moid, times=1)
    snapshot = vsphere.take_snapshot(
        job_id="job-1",
        vm_moref=vm.moid,
        instance_uuid=vm.instance_uuid,
        quiesce=True,
        owner=OWNER,
    )
    assert apart.fired == 1
    assert snapshot.warnings == []
    assert snapshot.consistency == "file_system"
    assert [one.name for one in vm.snapshots] == ["sendense-job-1"]
    (disk,) = snapshot.disks
    assert vsphere.changed_areas(snapshot, disk, disk.change_id) == []
    with vsphere.open_disk(snapshot, disk, Cancellation()) as reader:
        pieces = split_extents(whole_disk(disk.capacity_bytes))
        content = b"".join(extent.data for extent in reader.read(pieces))
    assert content == vm.frozen_content(vm.snapshots[0], disk.key)
    vsphere.remove_snapshot(snapshot)
    assert vm.snapshots == []
    assert abs((vsphere.time() - vm.changed_at).total_seconds()) < 3600


@pytest.mark.parametrize("method", METHODS_OF_A_BACKUP)
def test_session_that_ends_at_any_call_of_a_backup_is_renewed_and_the_call_repeated(
    simulated: SimulatedSite, vsphere: VsphereSite, method: str
) -> None:
    simulated.behaviour.page_objects = 1
    bystander = simulated.add_vm("web", disks=[DiskSpec(capacity_bytes=MIB)])
    for skip in count():
        vm = vm_to_back_up(simulated)
        logins = simulated.faults.calls("Login")
        expiry = simulated.faults.set("session-expiry", method=method, times=1, skip=skip)
        back_up(simulated, vsphere, vm)
        simulated.remove_vm(vm)
        simulated.faults.clear()
        if not expiry.fired:
            break  # a backup makes that call `skip` times
        # None when it was the end of a view or a collector, after which nothing was asked.
        assert simulated.faults.calls("Login") - logins in (0, 1)
    assert skip > 0
    assert bystander.snapshots == []


def test_calls_of_a_backup_are_those_that_sessions_end_at_above(
    simulated: SimulatedSite, vsphere: VsphereSite
) -> None:
    simulated.behaviour.page_objects = 1
    simulated.add_vm("web", disks=[DiskSpec(capacity_bytes=MIB)])
    vm = vm_to_back_up(simulated)
    never = simulated.faults.set("session-expiry", times=1, skip=1_000_000)

    def called() -> int:
        return sum(simulated.faults.calls(method) for method in METHODS_OF_A_BACKUP)

    before = called()
    back_up(simulated, vsphere, vm)
    assert called() - before == 1_000_000 - never.skip


def test_sessions_that_end_at_each_creation_leave_no_snapshot(
    simulated: SimulatedSite, vsphere: VsphereSite
) -> None:
    vm = simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=MIB)])
    simulated.faults.set("session-expiry", method="CreateSnapshot_Task")
    logins = simulated.faults.calls("Login")
    with pytest.raises(SessionLost):
        vsphere.take_snapshot(
            job_id="job-1",
            vm_moref=vm.moid,
            instance_uuid=vm.instance_uuid,
            quiesce=False,
            owner=OWNER,
        )
    assert simulated.faults.calls("Login") - logins == 2
    simulated.faults.assert_all_fired()
    assert vm.snapshots == []


def test_sessions_that_end_at_each_removal_leave_a_snapshot_that_a_sweep_finds(
    simulated: SimulatedSite, vsphere: VsphereSite
) -> None:
    vm = vm_to_back_up(simulated)
    (leftover,) = vsphere.find_leftovers(set, OWNER)
    simulated.faults.set("session-expiry", method="RemoveSnapshot_Task")
    with pytest.raises(SnapshotNotRemoved, match="ends its sessions at once"):
        vsphere.remove_leftover(leftover, NEVER_ENDED)
    simulated.faults.assert_all_fired()
    simulated.faults.clear()
    assert vsphere.find_leftovers(set, OWNER) == [leftover]
    vsphere.remove_leftover(leftover, NEVER_ENDED)
    assert vm.snapshots == []
