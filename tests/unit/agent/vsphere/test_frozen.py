"""Whether a job's snapshot still stands, as the job finds out before connections and at its end."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from agent.cancellation import Cancellation
from agent.errors import JobCancelled, SnapshotVanished
from agent.transports.errors import NfcTicketRefused
from agent.vsphere import frozen
from agent.vsphere.errors import ChangeTrackingUnusable, VsphereFault
from agent.vsphere.models import JobSnapshot
from agent.vsphere.session import VsphereSession
from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.agent.transports.read_disks import CAPACITY, content, take, whole

pytestmark = pytest.mark.hostile


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    disks = [DiskSpec(capacity_bytes=CAPACITY, content=content(n)) for n in (1, 2)]
    return simulated.add_vm("pg", disks=disks, change_tracking_enabled=True)


def test_snapshot_that_stands_is_enough_whatever_else_happens_to_the_vm(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    vm.disks[0].write(0, b"later")
    child = vm.create_snapshot("after it")
    vsphere.require_frozen(snapshot, Cancellation())
    vm.remove_snapshot(child)
    vm.power("poweredOn")
    vsphere.require_frozen(snapshot, Cancellation())


@pytest.mark.parametrize("another", [False, True], ids=["none left", "another made"])
def test_snapshot_that_was_removed_is_told_by_its_name_and_vm(
    vsphere: VsphereSite, vm: SimulatedVm, another: bool
) -> None:
    snapshot = take(vsphere, vm)
    vm.remove_snapshot(vm.snapshots[0])
    if another:
        vm.create_snapshot(snapshot.name)
    with pytest.raises(SnapshotVanished, match="was removed") as caught:
        vsphere.require_frozen(snapshot, Cancellation())
    assert f"snapshot {snapshot.name} of VM {vm.moid}" in str(caught.value)
    assert caught.value.retryable


def test_vm_that_is_gone_took_its_snapshot_along(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    simulated.remove_vm(vm)
    with pytest.raises(SnapshotVanished):
        vsphere.require_frozen(snapshot, Cancellation())


def test_snapshot_listed_but_gone_when_asked_is_gone(
    vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take(vsphere, vm)
    listed = frozen.snapshots_of

    def then_removed(session: VsphereSession, vm_moref: str) -> Any:
        found = listed(session, vm_moref)
        vm.remove_snapshot(vm.snapshots[0])
        return found

    monkeypatch.setattr(frozen, "snapshots_of", then_removed)
    with pytest.raises(SnapshotVanished, match="was removed"):
        vsphere.require_frozen(snapshot, Cancellation())


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"file_name": "[datastore1] pg/other.vmdk"}, "other.vmdk"),
        ({"uuid": "6000c290"}, "6000c290"),
        ({"capacity_bytes": 512}, "512 bytes"),
        ({"key": 4711}, "no longer holds Hard disk 2"),
    ],
)
def test_disk_that_is_another_than_was_frozen_is_told(
    vsphere: VsphereSite, vm: SimulatedVm, other: dict[str, Any], told: str
) -> None:
    snapshot = take(vsphere, vm)
    first, second = snapshot.disks
    changed = replace(snapshot, disks=[first, replace(second, **other)])
    with pytest.raises(SnapshotVanished, match="Hard disk 2") as caught:
        vsphere.require_frozen(changed, Cancellation())
    assert told in str(caught.value)


def test_frozen_file_that_was_merged_into_its_parent_is_told(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    older = vm.create_snapshot("older")
    snapshot = take(vsphere, vm)
    vm.remove_snapshot(older)
    with pytest.raises(SnapshotVanished, match="holds another file"):
        vsphere.require_frozen(snapshot, Cancellation())


def test_no_ticket_is_asked_for_when_the_snapshot_is_gone(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    vm.remove_snapshot(vm.snapshots[0])
    with pytest.raises(SnapshotVanished):
        vsphere.open_disk(snapshot, snapshot.disks[0], Cancellation())
    assert simulated.faults.calls("NfcGetVmFiles") == 0
    assert vsphere._budget._hosts == {}


def test_disk_of_a_vm_without_snapshots_is_read_when_none_is_named(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    vsphere.remove_snapshot(snapshot)
    vm.power("poweredOff")
    bare = JobSnapshot("", vm.moid, "", "crash", snapshot.disks, [])
    with vsphere.open_disk(bare, bare.disks[0], Cancellation()) as reader:
        assert whole(reader) == content(1)


def test_fault_of_the_look_before_a_connection_is_told_as_that_of_the_ticket(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    host = vsphere._tickets.host_of(vm.moid)
    vsphere._tickets.host_of = lambda _: host  # type: ignore[method-assign]
    simulated.faults.fail_method("RetrievePropertiesEx")
    with pytest.raises(NfcTicketRefused, match="SystemError"):
        vsphere.open_disk(snapshot, snapshot.disks[0], Cancellation())
    simulated.faults.assert_all_fired()


@pytest.mark.parametrize("fault", ["method-fail", "answer-lost"])
def test_vsphere_that_answers_again_is_waited_for_at_the_end(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, fault: str
) -> None:
    snapshot = take(vsphere, vm)
    simulated.faults.set(fault, method="RetrievePropertiesEx", times=1)
    vsphere.require_frozen(snapshot, Cancellation())
    simulated.faults.assert_all_fired()


def test_vsphere_that_cannot_be_asked_at_the_end_is_an_error(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frozen, "LAST_LOOK_S", 0.0)
    snapshot = take(vsphere, vm)
    refused = simulated.faults.set("method-fail", method="RetrievePropertiesEx")
    with pytest.raises(VsphereFault, match="SystemError"):
        vsphere.require_frozen(snapshot, Cancellation())
    assert refused.fired == 1


def test_wait_for_vsphere_at_the_end_ends_with_the_job(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    refused = simulated.faults.set("method-fail", method="RetrievePropertiesEx")
    job = Cancellation()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(vsphere.require_frozen, snapshot, job)
        assert refused.wait_fired(20)
        job.cancel(JobCancelled("enough"))
        with pytest.raises(JobCancelled):
            asking.result(20)


def test_changes_of_a_snapshot_that_is_gone_are_no_reason_to_compare(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    base = take(vsphere, vm)
    vsphere.remove_snapshot(base)
    snapshot = take(vsphere, vm)
    vm.remove_snapshot(vm.snapshots[0])
    with pytest.raises(SnapshotVanished):
        vsphere.changed_areas(snapshot, snapshot.disks[0], base.disks[0].change_id)


def test_changes_are_not_known_when_something_else_than_the_snapshot_is_gone(
    vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = take(vsphere, vm)
    vsphere.remove_snapshot(base)
    snapshot = take(vsphere, vm)
    run = VsphereSession.run
    asked = []

    def refuse(self: VsphereSession, doing: str, operation: Any, **options: Any) -> Any:
        if doing.startswith("tell what changed"):
            asked.append(doing)
            raise VsphereFault(doing, "vmodl.fault.ManagedObjectNotFound", "a datastore")
        return run(self, doing, operation, **options)

    monkeypatch.setattr(VsphereSession, "run", refuse)
    with pytest.raises(ChangeTrackingUnusable, match="a datastore"):
        vsphere.changed_areas(snapshot, snapshot.disks[0], base.disks[0].change_id)
    assert len(asked) == 1
