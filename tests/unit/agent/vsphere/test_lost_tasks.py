"""Tasks whose answers are lost: no snapshot is left unnoticed, no removal is given up early."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.vsphere import snapshot_creation, snapshot_removal
from agent.vsphere.api import vim
from agent.vsphere.errors import SnapshotFailed, SnapshotMaybeLeft, VsphereUnreachable
from agent.vsphere.properties import NEVER_ENDED
from agent.vsphere.site import VsphereSite
from agent.vsphere.snapshot_creation import SnapshotCreation
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.agent.vsphere.conftest import OWNER, take

pytestmark = pytest.mark.usefixtures("short_pauses")


def started(simulated: SimulatedSite, method: str) -> int:
    return len([one for one in simulated.tasks.recent() if one.method == method])


def test_creation_is_waited_for_over_broken_connections(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    simulated.faults.cut_answer("WaitForUpdatesEx", times=4)
    snapshot = take(vsphere, vm)
    simulated.faults.assert_all_fired()
    assert [one.moid for one in vm.snapshots] == [snapshot.moref]
    assert started(simulated, "CreateSnapshot_Task") == 1


def test_snapshot_of_a_creation_that_ends_late_is_removed(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settle = SnapshotCreation._settle

    def release_then_settle(creation: SnapshotCreation) -> None:
        assert vm.snapshots == []
        simulated.faults.release_tasks()
        settle(creation)

    monkeypatch.setattr(SnapshotCreation, "_settle", release_then_settle)
    monkeypatch.setattr(snapshot_creation, "CREATE_TIMEOUT_S", 0.2)
    simulated.faults.hold_tasks("CreateSnapshot_Task")
    with pytest.raises(SnapshotFailed, match="did not end"):
        take(vsphere, vm)
    assert started(simulated, "CreateSnapshot_Task") == 1
    assert started(simulated, "RemoveSnapshot_Task") == 1
    assert vm.snapshots == []


def test_creation_that_does_not_end_is_told_and_found_later(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_creation, "CREATE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(snapshot_creation, "SETTLE_TIMEOUT_S", 0.2)
    simulated.faults.hold_tasks("CreateSnapshot_Task")
    with pytest.raises(SnapshotMaybeLeft, match="sendense-job-1") as caught:
        take(vsphere, vm, quiesce=True)
    assert caught.value.code == "SNAPSHOT_FAILED"
    assert caught.value.vm_moref == vm.moid
    assert started(simulated, "CreateSnapshot_Task") == 1  # no second one without quiescing
    assert vsphere.find_leftovers(set, OWNER) == []
    simulated.faults.release_tasks()
    simulated.tasks.wait_all(10)
    (leftover,) = vsphere.find_leftovers(set, OWNER)
    vsphere.remove_leftover(leftover, NEVER_ENDED)
    assert vm.snapshots == []


def test_snapshot_whose_task_was_never_learnt_is_found_by_name(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    simulated.faults.cut_answer("CreateSnapshot_Task")
    with pytest.raises(VsphereUnreachable):
        take(vsphere, vm)
    simulated.faults.assert_all_fired()
    assert started(simulated, "RemoveSnapshot_Task") == 1
    assert vm.snapshots == []


def test_snapshot_that_may_yet_appear_is_told(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_creation, "APPEAR_TIMEOUT_S", 0.1)
    simulated.faults.hold_tasks("CreateSnapshot_Task")
    simulated.faults.cut_answer("CreateSnapshot_Task")
    with pytest.raises(SnapshotMaybeLeft, match="yet appear") as caught:
        take(vsphere, vm)
    assert isinstance(caught.value.__cause__, VsphereUnreachable)
    simulated.faults.release_tasks()


def test_creation_that_was_refused_leaves_no_doubt(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    simulated.faults.fail_method("CreateSnapshot_Task")
    with pytest.raises(SnapshotFailed):
        take(vsphere, vm)
    simulated.faults.fail_task("CreateSnapshot_Task")
    with pytest.raises(SnapshotFailed):
        take(vsphere, vm)
    simulated.faults.assert_all_fired()


def test_removal_is_waited_for_over_broken_connections(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 1)
    snapshot = take(vsphere, vm)
    simulated.faults.cut_answer("WaitForUpdatesEx", times=4)
    vsphere.remove_snapshot(snapshot)
    simulated.faults.assert_all_fired()
    assert vm.snapshots == []
    assert started(simulated, "RemoveSnapshot_Task") == 1


def test_removal_whose_answer_was_lost_is_joined_not_given_up(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 2)
    snapshot = take(vsphere, vm)
    simulated.faults.hold_tasks("RemoveSnapshot_Task")
    simulated.faults.cut_answer("RemoveSnapshot_Task")
    simulated.faults.hold_answer("RemoveSnapshot_Task")  # of the second call: TaskInProgress
    with ThreadPoolExecutor(1) as threads:
        removal = threads.submit(vsphere.remove_snapshot, snapshot)
        assert simulated.faults.answer_held.wait(20)
        simulated.faults.release_answers()
        simulated.faults.release_tasks()
        removal.result(30)
    assert vm.snapshots == []
    assert started(simulated, "RemoveSnapshot_Task") == 1
    simulated.faults.assert_all_fired()


def test_removal_waits_for_another_task_at_the_vm(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 1)
    snapshot = take(vsphere, vm)
    simulated.faults.hold_tasks("ReconfigVM_Task")
    seen = vim.VirtualMachine(vm.moid, vsphere._session.stub)
    seen.ReconfigVM_Task(vim.vm.ConfigSpec(name="renamed"))
    simulated.faults.hold_answer("RemoveSnapshot_Task")
    with ThreadPoolExecutor(1) as threads:
        removal = threads.submit(vsphere.remove_snapshot, snapshot)
        assert simulated.faults.answer_held.wait(20)
        simulated.faults.release_answers()
        simulated.faults.release_tasks()
        removal.result(30)
    assert vm.name == "renamed"
    assert vm.snapshots == []
