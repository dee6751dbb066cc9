"""A VM's other snapshots and its disks' state, looked at before and after a job's own snapshot."""

from dataclasses import replace
from datetime import timedelta

import pytest

from agent.vsphere import consolidation, snapshot_creation, snapshot_removal
from agent.vsphere.errors import DisksNotConsolidated, SnapshotFailed
from agent.vsphere.models import JobSnapshot
from agent.vsphere.session import VsphereSession
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from agent.vsphere.snapshot_tree import description_for
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.agent.vsphere.conftest import OWNER, take

pytestmark = pytest.mark.hostile

MIB = 1 << 20


def told(snapshot: JobSnapshot) -> dict[str, str]:
    return {warning.code: warning.message for warning in snapshot.warnings}


def test_old_snapshot_is_told_by_name(vsphere: VsphereSite, vm: SimulatedVm) -> None:
    vm.create_snapshot("before the upgrade", age=timedelta(days=30))
    vm.create_snapshot("yesterday's", age=timedelta(days=1))
    warnings = told(take(vsphere, vm))
    assert list(warnings) == ["SNAPSHOT_OLD"]
    assert '"before the upgrade" is 30 days old' in warnings["SNAPSHOT_OLD"]
    assert "yesterday" not in warnings["SNAPSHOT_OLD"]


def test_many_snapshots_are_told_and_the_backup_goes_on(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    for number in range(4):
        vm.create_snapshot(f"step {number}")
    snapshot = take(vsphere, vm)
    warnings = told(snapshot)
    assert list(warnings) == ["SNAPSHOT_COUNT"]
    assert '4 snapshots ("step 0", "step 1", "step 2", "step 3")' in warnings["SNAPSHOT_COUNT"]
    assert snapshot.other_snapshots == [f"step {number}" for number in range(4)]


def test_limits_of_snapshots_are_the_settings(
    settings: VsphereSettings, simulated: SimulatedSite, vm: SimulatedVm
) -> None:
    vm.create_snapshot("an hour old", age=timedelta(hours=1))
    limits = replace(settings, snapshot_age_alarm_h=0.5, snapshot_count_alarm=0)
    with VsphereSite.connect(limits) as vsphere:
        assert list(told(take(vsphere, vm))) == ["SNAPSHOT_OLD", "SNAPSHOT_COUNT"]


def test_own_snapshots_are_the_sweep_s_business_and_another_agent_s_are_told(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    old = timedelta(days=9)
    vm.create_snapshot("sendense-1", description_for(OWNER, "paris", "1"), age=old)
    assert told(take(vsphere, vm)) == {}
    vm.create_snapshot("sendense-2", description_for("agent-2", "rome", "2"), age=old)
    message = told(take(vsphere, vm))["SNAPSHOT_OLD"]
    assert '"sendense-2"' in message
    assert "could not be removed" in message


def test_disks_that_need_it_are_consolidated_before_the_snapshot(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    simulated.faults.set("consolidation-needed", vm="pg", times=1)
    assert vm.consolidation_needed
    snapshot = take(vsphere, vm)
    assert told(snapshot) == {}
    assert not vm.consolidation_needed
    assert simulated.faults.calls("ConsolidateVMDisks_Task") == 1
    simulated.faults.assert_all_fired()


def test_disks_that_need_no_consolidation_are_left_alone(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    vsphere.remove_snapshot(take(vsphere, vm))
    assert simulated.faults.calls("ConsolidateVMDisks_Task") == 0


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("consolidation-needed", {}, "still need it"),
        (
            "task-fail",
            {"method": "ConsolidateVMDisks_Task", "fault": "FileLocked"},
            "told to fail",
        ),
        (
            "method-fail",
            {"method": "ConsolidateVMDisks_Task", "fault": "NoPermission"},
            "may not consolidate",
        ),
    ],
)
def test_consolidation_that_fails_is_told_and_the_backup_goes_on(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    name: str,
    options: dict[str, str],
    why: str,
) -> None:
    simulated.faults.set("consolidation-needed", vm="pg")
    if name != "consolidation-needed":
        simulated.faults.set(name, vm="pg", **options)
    warnings = told(take(vsphere, vm))
    assert list(warnings) == ["CONSOLIDATION_FAILED"]
    assert why in warnings["CONSOLIDATION_FAILED"]
    assert [one.name for one in vm.snapshots] == ["sendense-job-1"]
    assert simulated.faults.calls("ConsolidateVMDisks_Task") == 1


@pytest.mark.parametrize("fault", ["consolidation-needed", "task-fail"])
def test_tracking_is_not_enabled_on_links_that_snapshots_left(
    simulated: SimulatedSite, vsphere: VsphereSite, fault: str
) -> None:
    vm = simulated.add_vm("apart", disks=[DiskSpec(capacity_bytes=MIB)])
    apart = simulated.faults.set("consolidation-needed", vm="apart")
    vm.remove_snapshot(vm.create_snapshot("left its link"))
    assert len(vm.links(vm.disks[0])) == 2
    failing = apart
    if fault == "task-fail":
        failing = simulated.faults.set(fault, vm="apart", method="ConsolidateVMDisks_Task")
    snapshot = take(vsphere, vm)
    assert failing.fired == 1
    warnings = told(snapshot)
    assert list(warnings) == ["CONSOLIDATION_FAILED", "CHANGE_TRACKING_NOT_ENABLED"]
    assert "need consolidation, and it failed" in warnings["CHANGE_TRACKING_NOT_ENABLED"]
    assert not vm.change_tracking_enabled
    assert [disk.change_id for disk in snapshot.disks] == [""]
    assert simulated.faults.calls("ReconfigVM_Task") == 0
    simulated.faults.clear()
    vsphere.remove_snapshot(snapshot)
    assert told(take(vsphere, vm)) == {}
    assert vm.change_tracking_enabled


def test_consolidation_that_does_not_end_is_given_up(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consolidation, "BEFORE_SNAPSHOT_S", 0.2)
    monkeypatch.setattr(snapshot_creation, "CREATE_TIMEOUT_S", 0.2)
    simulated.faults.set("consolidation-needed", vm="pg")
    stalled = simulated.faults.set("task-stall", vm="pg", method="ConsolidateVMDisks_Task")
    try:
        with pytest.raises(SnapshotFailed, match="did not end"):
            take(vsphere, vm)
        assert vm.snapshots == []
    finally:
        simulated.faults.clear()
    assert stalled.fired == 1


def test_snapshot_that_went_and_left_its_disks_apart_is_told_as_such(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 1)
    snapshot = take(vsphere, vm)
    simulated.faults.set("consolidation-needed", vm="pg")
    with pytest.raises(DisksNotConsolidated) as caught:
        vsphere.remove_snapshot(snapshot)
    assert vm.snapshots == []
    assert "is removed, but" in str(caught.value)
    assert "left behind" not in str(caught.value)
    simulated.faults.clear()
    vsphere.remove_snapshot(snapshot)  # the next try finds nothing to complain of
    assert not vm.consolidation_needed


@pytest.mark.parametrize("fault", ["FilesystemQuiesceFault", "ApplicationQuiesceFault"])
def test_guest_that_cannot_be_quiesced_is_frozen_without_and_the_level_says_so(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, fault: str
) -> None:
    failing = simulated.faults.set("quiesce-fail", vm="pg", fault=fault)
    snapshot = take(vsphere, vm, quiesce=True)
    assert snapshot.consistency == "crash"
    assert list(told(snapshot)) == ["QUIESCE_FAILED"]
    assert [one.quiesced for one in vm.snapshots] == [False]
    assert failing.fired == 1


def test_level_is_what_the_snapshot_says_and_not_what_was_asked_for(
    vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = vm.create_snapshot
    monkeypatch.setattr(
        vm,
        "create_snapshot",
        lambda *given, **options: make(*given, **options | {"quiesce": False}),
    )
    snapshot = take(vsphere, vm, quiesce=True)
    assert snapshot.consistency == "crash"
    assert list(told(snapshot)) == ["QUIESCE_FAILED"]


def test_quiescing_a_vm_that_is_off_is_no_warning(vsphere: VsphereSite, vm: SimulatedVm) -> None:
    vm.power("poweredOff")
    snapshot = take(vsphere, vm, quiesce=True)
    assert snapshot.consistency == "crash"
    assert told(snapshot) == {}


def test_vm_with_snapshots_is_backed_up_without_tracking_and_told_why(
    simulated: SimulatedSite, vsphere: VsphereSite
) -> None:
    vm = simulated.add_vm("untracked", disks=[DiskSpec(capacity_bytes=MIB)])
    vm.create_snapshot("by hand")
    snapshot = take(vsphere, vm)
    assert "has 1 snapshot: remove" in told(snapshot)["CHANGE_TRACKING_NOT_ENABLED"]
    assert not vm.change_tracking_enabled
    assert simulated.faults.calls("ReconfigVM_Task") == 0
    assert len(snapshot.disks) == 1


def test_ages_go_by_the_host_s_clock(
    vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = VsphereSession.server_time
    monkeypatch.setattr(
        VsphereSession, "server_time", lambda session: now(session) + timedelta(days=400)
    )
    vm.create_snapshot("of today")
    assert '"of today" is 400 days old' in told(take(vsphere, vm))["SNAPSHOT_OLD"]
