"""Steps of a job at vSphere that could go on for ever or hide a failure, and do not."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent.cancellation import Cancellation
from agent.vsphere import change_tracking, consolidation, quiescing
from agent.vsphere.api import vim, vmodl
from agent.vsphere.errors import ChangeTrackingUnusable, SnapshotFailed
from agent.vsphere.models import JobSnapshot
from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite

pytestmark = pytest.mark.hostile

MIB = 1 << 20


class Ended(Exception):
    """What a job is cancelled with."""


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    return simulated.add_vm(
        "pg", disks=[DiskSpec(capacity_bytes=MIB)], change_tracking_enabled=True
    )


def take(vsphere: VsphereSite, vm: SimulatedVm, job_id: str = "1", **options: Any) -> JobSnapshot:
    given = {"quiesce": False, **options}
    return vsphere.take_snapshot(
        job_id=job_id, vm_moref=vm.moid, instance_uuid="", owner="agent-1", **given
    )


def codes(snapshot: JobSnapshot) -> list[str]:
    return [warning.code for warning in snapshot.warnings]


def cancelled_after(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, cancellation: Cancellation
) -> None:
    """Cancels when the named function of the module has done its work."""
    work: Callable[..., Any] = getattr(module, name)

    def work_then_cancel(*given: Any, **options: Any) -> Any:
        result = work(*given, **options)
        cancellation.cancel(Ended())
        return result

    monkeypatch.setattr(module, name, work_then_cancel)


def test_question_in_tiny_slices_ends_with_the_job(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, cancellation = take(vsphere, vm, "base"), Cancellation()
    tiny = simulated.faults.set("cbt-slice-bytes", vm="pg", bytes=512)
    cancelled_after(monkeypatch, change_tracking, "_add_slice", cancellation)
    with pytest.raises(Ended):
        vsphere.changed_areas(base, base.disks[0], base.disks[0].change_id, cancellation)
    assert tiny.fired == 1
    assert simulated.faults.calls("QueryChangedDiskAreas") == 1


def test_question_that_takes_too_long_is_given_up_and_one_answered_at_once_is_not(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(change_tracking, "QUESTION_S", 0.0)
    base = take(vsphere, vm, "base")
    disk = base.disks[0]
    assert vsphere.changed_areas(base, disk, disk.change_id) == []
    tiny = simulated.faults.set("cbt-slice-bytes", vm="pg", bytes=512)
    with pytest.raises(ChangeTrackingUnusable, match="512 of 1048576 bytes in 0 s"):
        vsphere.changed_areas(base, disk, disk.change_id)
    assert tiny.fired == 1


@pytest.mark.parametrize("fault", ["NoDiskSpace", "GenericVmConfigFault", "FileLocked"])
def test_quiesced_snapshot_that_fails_for_another_reason_fails(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, fault: str
) -> None:
    failing = simulated.faults.set(
        "task-fail", vm="pg", method="CreateSnapshot_Task", fault=fault, times=1
    )
    with pytest.raises(SnapshotFailed, match="told to fail"):
        take(vsphere, vm, quiesce=True)
    assert failing.fired == 1
    assert simulated.faults.calls("CreateSnapshot_Task") == 1
    assert vm.snapshots == []


@pytest.mark.parametrize("name", ["task-fail", "method-fail"])
@pytest.mark.parametrize(
    "fault", ["SnapshotFault", "ApplicationQuiesceFault", "InvalidState", "InvalidPowerState"]
)
def test_guest_that_cannot_be_quiesced_is_frozen_without(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, name: str, fault: str
) -> None:
    failing = simulated.faults.set(
        name, vm="pg", method="CreateSnapshot_Task", fault=fault, times=1
    )
    snapshot = take(vsphere, vm, quiesce=True)
    assert failing.fired == 1
    assert codes(snapshot) == ["QUIESCE_FAILED"]
    assert snapshot.consistency == "crash"
    assert [one.name for one in vm.snapshots] == [snapshot.name]


def test_wrapped_quiesce_fault_is_known_by_its_message_s_key() -> None:
    wrapped = vim.fault.GenericVmConfigFault(
        faultMessage=[vmodl.LocalizableMessage(key="msg.snapshot.error-QUIESCINGERROR")]
    )
    assert quiescing.is_quiesce_fault(wrapped)
    assert quiescing.is_quiesce_fault(vim.fault.ToolsUnavailable())
    assert not quiescing.is_quiesce_fault(vim.fault.TooManySnapshotLevels())
    assert not quiescing.is_quiesce_fault(vim.fault.GenericVmConfigFault())
    assert not quiescing.is_quiesce_fault(vim.fault.TaskInProgress())


def test_quiesced_snapshot_waits_for_another_task_at_the_vm(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    simulated.faults.hold_tasks("ReconfigVM_Task")
    seen = vim.VirtualMachine(vm.moid, vsphere._session.stub)
    seen.ReconfigVM_Task(vim.vm.ConfigSpec(name="renamed"))
    simulated.faults.hold_answer("CreateSnapshot_Task")  # TaskInProgress
    with ThreadPoolExecutor(1) as threads:
        taking = threads.submit(take, vsphere, vm, quiesce=True)
        try:
            assert simulated.faults.answer_held.wait(20)
        finally:
            simulated.faults.release_answers()
            simulated.faults.release_tasks()
        snapshot = taking.result(30)
    assert codes(snapshot) == []
    assert snapshot.consistency == "file_system"
    assert [one.quiesced for one in vm.snapshots] == [True]
    simulated.faults.assert_all_fired()


@pytest.mark.parametrize("other_task", [False, True], ids=["it does not end", "another is there"])
def test_tracking_whose_task_does_not_end_is_a_warning(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
    other_task: bool,
) -> None:
    monkeypatch.setattr(change_tracking, "RECONFIGURE_TIMEOUT_S", 0.2)
    seen = vim.VirtualMachine(vm.moid, vsphere._session.stub)
    method = "CreateSnapshot_Task" if other_task else "ReconfigVM_Task"
    stalled = simulated.faults.set("task-stall", vm="pg", method=method)
    try:
        if other_task:
            seen.CreateSnapshot_Task("by hand", "", False, False)
        warning = change_tracking.enable(
            vsphere._session, seen, vm_name="pg", supported=True, snapshot_count=0, is_merged=True
        )
    finally:
        simulated.faults.clear()
    assert warning is not None
    assert warning.code == "CHANGE_TRACKING_NOT_ENABLED"
    assert "did not end" in warning.message
    assert ("enable changed block tracking of pg" in warning.message) is not other_task
    assert stalled.fired == 1


def test_cancelled_job_neither_enables_tracking_nor_takes_a_snapshot(
    simulated: SimulatedSite, vsphere: VsphereSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = simulated.add_vm("untracked", disks=[DiskSpec(capacity_bytes=MIB)])
    simulated.faults.set("consolidation-needed", vm="untracked", times=1)
    cancellation = Cancellation()
    cancelled_after(monkeypatch, consolidation, "consolidate_before_snapshot", cancellation)
    with pytest.raises(Ended):
        take(vsphere, vm, cancellation=cancellation)
    simulated.faults.assert_all_fired()
    assert simulated.faults.calls("ReconfigVM_Task") == 0
    assert simulated.faults.calls("CreateSnapshot_Task") == 0


def test_job_cancelled_while_tracking_is_enabled_takes_no_snapshot(
    simulated: SimulatedSite, vsphere: VsphereSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = simulated.add_vm("untracked", disks=[DiskSpec(capacity_bytes=MIB)])
    cancellation = Cancellation()
    cancelled_after(monkeypatch, change_tracking, "enable", cancellation)
    with pytest.raises(Ended):
        take(vsphere, vm, cancellation=cancellation)
    assert vm.change_tracking_enabled
    assert simulated.faults.calls("CreateSnapshot_Task") == 0
