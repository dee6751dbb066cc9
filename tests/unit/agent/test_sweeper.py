"""Snapshots that earlier jobs left behind: found, removed, and nobody else held up by it."""

import time
from collections.abc import Callable

import grpc
import pytest

from agent import sweeper
from agent.vsphere import snapshot_removal
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from shared.errors import SendenseError
from shared.grpc_errors import abort_with
from simulator.machines import SimulatedVm
from simulator.site import DiskSpec, SimulatedSite
from tests.unit.agent.drawn_disks import drawn
from tests.unit.agent.recording_hub import DEADLINE_S, RecordingHub
from tests.unit.agent.running_agent import RunningAgent, back_up, send_plan, start_job

OURS = "agent-1"  # the id that the recording hub gives


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    return simulated.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=1 << 20, content=drawn("a"))])


def leave_snapshot(
    settings: VsphereSettings, vm: SimulatedVm, job_id: str, owner: str = OURS
) -> None:
    """As an agent does that dies during a job."""
    with VsphereSite.connect(settings) as site:
        site.take_snapshot(
            job_id=job_id,
            vm_moref=vm.moid,
            instance_uuid=vm.instance_uuid,
            quiesce=False,
            owner=owner,
        )


def names(vm: SimulatedVm) -> list[str]:
    return [snapshot.name for snapshot in vm.snapshots]


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_for_names(vm: SimulatedVm, *wanted: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while names(vm) != list(wanted):
        assert time.monotonic() < end, names(vm)
        time.sleep(0.01)


def test_leftovers_of_this_agent_are_removed_and_no_other_snapshot(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    vm.create_snapshot("before the upgrade", "taken by a person", quiesce=False)
    leave_snapshot(settings, vm, "of-another-hub", owner="agent-2")
    leave_snapshot(settings, vm, "died")
    assert len(vm.snapshots) == 3
    with RunningAgent(hub, settings):
        wait_for_names(vm, "before the upgrade", "sendense-of-another-hub")


def test_nothing_is_swept_before_the_hub_has_registered_the_agent(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    class SiteTaken(SendenseError):
        code = "SITE_TAKEN"
        status = grpc.StatusCode.ALREADY_EXISTS
        text = "another agent serves the site"

    leave_snapshot(settings, vm, "of-the-agent-that-serves")
    seen: list[list[str]] = []

    def refuse_twice(context: grpc.ServicerContext) -> None:
        seen.append(names(vm))
        if len(seen) <= 2:
            abort_with(context, SiteTaken())

    hub.before_register = refuse_twice
    with RunningAgent(hub, settings):
        wait_for_names(vm)
    assert seen == [["sendense-of-the-agent-that-serves"]] * 3


def test_slow_removal_holds_up_neither_the_inventory_nor_other_vms(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    other = simulated.add_vm("other", disks=[DiskSpec(capacity_bytes=1 << 20)])
    leave_snapshot(settings, vm, "died")
    simulated.faults.hold_tasks("RemoveSnapshot_Task")
    try:
        with RunningAgent(hub, settings):
            session = hub.next_session()
            counts = {m.name: m.snapshot_count for m in session.event("inventory").virtual_machines}
            assert counts == {"pgtest1": 1, "other": 0}
            start_job(session, vm, "job-1")  # waits for its VM
            start_job(session, other, "job-2")
            assert session.event("job_opened").job_id == "job-2"
            send_plan(session, "job-2", None)
            assert names(vm) == ["sendense-died"]
            simulated.faults.release_tasks()
            assert session.event("job_opened").job_id == "job-1"
            send_plan(session, "job-1", None)
            uploaded = [session.event("job_uploaded") for _ in range(2)]
            assert {one.job_id for one in uploaded} == {"job-1", "job-2"}
            assert [warning for one in uploaded for warning in one.warnings] == []
            assert (names(vm), names(other)) == ([], [])
    finally:
        simulated.faults.release_tasks()


def test_job_of_a_vm_whose_leftover_is_not_removed_in_time_says_so(
    hub: RecordingHub,
    simulated: SimulatedSite,
    settings: VsphereSettings,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeper, "VM_WAIT_S", 0.05)
    monkeypatch.setattr(sweeper, "POLL_S", 0.05)
    leave_snapshot(settings, vm, "died")
    simulated.faults.hold_tasks("RemoveSnapshot_Task")
    try:
        with RunningAgent(hub, settings):
            session = hub.next_session()
            start_job(session, vm, "job-1")
            failed = session.event("job_failed")
            assert failed.error.reason == "VM_BUSY"
            assert list(failed.warnings) == []
            assert names(vm) == ["sendense-died"]
            simulated.faults.release_tasks()
            wait_for_names(vm)
            back_up(session, vm, "job-2", None)
    finally:
        simulated.faults.release_tasks()


def test_snapshot_that_a_job_could_not_remove_goes_before_the_next_one(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    with RunningAgent(hub, settings):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        simulated.faults.fail_method("RemoveSnapshot_Task", times=4)
        session.event("job_opened")
        send_plan(session, "job-1", None)
        (warning,) = session.event("job_uploaded").warnings
        simulated.faults.assert_all_fired()
        assert warning.code == "SNAPSHOT_LEFT_BEHIND"
        assert "sendense-job-1" in warning.message
        opened = back_up(session, vm, "job-2", None)
        assert list(opened.other_snapshots) == []
        assert names(vm) == []


def test_snapshot_whose_creation_was_not_answered_is_told_of_and_swept(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    with RunningAgent(hub, settings):
        session = hub.next_session()
        session.event("inventory")
        simulated.faults.cut_answer("CreateSnapshot_Task")
        simulated.faults.fail_method("RemoveSnapshot_Task", times=4)
        start_job(session, vm, "job-1")
        failed = session.event("job_failed")
        simulated.faults.assert_all_fired()
        assert [warning.code for warning in failed.warnings] == ["SNAPSHOT_LEFT_BEHIND"]
        opened = back_up(session, vm, "job-2", None)
        assert list(opened.other_snapshots) == []
        assert names(vm) == []


def test_failure_before_a_snapshot_could_be_made_warns_of_none(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    with RunningAgent(hub, settings):
        session = hub.next_session()
        simulated.faults.fail_method("CreateSnapshot_Task", times=1)
        start_job(session, vm, "job-1")
        failed = session.event("job_failed")
        simulated.faults.assert_all_fired()
        assert (failed.error.reason, list(failed.warnings)) == ("SNAPSHOT_FAILED", [])


def test_leftovers_are_found_once_vsphere_answers_again(
    hub: RecordingHub,
    simulated: SimulatedSite,
    settings: VsphereSettings,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeper, "RETRY_S", 0.05)
    leave_snapshot(settings, vm, "died")
    # The inventory and the sweep ask in this way: both fail at first.
    simulated.faults.fail_method("CreateContainerView", times=2)
    with RunningAgent(hub, settings, inventory_interval_s=0.05):
        wait_for_names(vm)
        simulated.faults.assert_all_fired()


def test_job_names_the_snapshots_that_the_vm_has_beside_it(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    vm.create_snapshot("before the upgrade", "taken by a person", quiesce=False)
    with RunningAgent(hub, settings):
        opened = back_up(hub.next_session(), vm, "job-1", None)
        assert list(opened.other_snapshots) == ["before the upgrade"]


def test_agent_that_gets_no_id_does_not_take_the_registration(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    leave_snapshot(settings, vm, "died", owner=OURS)
    hub.agent_id = ""
    with RunningAgent(hub, settings):
        assert hub.next_session().agent_left.wait(DEADLINE_S)
        assert names(vm) == ["sendense-died"]
        hub.agent_id = OURS
        wait_for_names(vm)


@pytest.mark.hostile
def test_removal_that_fails_once_is_no_warning_of_the_job(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    failing = simulated.faults.set("snapshot-remove-fail", vm=vm.name, times=1)
    with RunningAgent(hub, settings):
        back_up(hub.next_session(), vm, "job-1", None)
        assert names(vm) == []
    assert failing.fired == 1


@pytest.mark.hostile
def test_removal_that_fails_for_ever_is_told_by_each_job_and_made_up_for_at_the_next_start(
    hub: RecordingHub,
    simulated: SimulatedSite,
    settings: VsphereSettings,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 1)
    failing = simulated.faults.set("snapshot-remove-fail", vm=vm.name)
    with RunningAgent(hub, settings):
        session = hub.next_session()
        for number, others in enumerate(
            [[], ["sendense-job-0"], ["sendense-job-0", "sendense-job-1"]]
        ):
            start_job(session, vm, f"job-{number}")
            opened = session.event("job_opened")
            # The job's own link is read, whatever else stands.
            assert list(opened.other_snapshots) == others
            send_plan(session, f"job-{number}", None)
            warnings = session.event("job_uploaded").warnings
            assert [one.code for one in warnings] == ["SNAPSHOT_LEFT_BEHIND"]
            assert f"sendense-job-{number}" in warnings[0].message
    assert names(vm) == ["sendense-job-0", "sendense-job-1", "sendense-job-2"]
    assert failing.fired >= 3
    simulated.faults.clear()
    with RunningAgent(hub, settings):
        wait_for_names(vm)


@pytest.mark.hostile
def test_sweep_beside_a_job_touches_neither_its_snapshot_nor_what_is_not_ours(
    hub: RecordingHub,
    simulated: SimulatedSite,
    settings: VsphereSettings,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 1)
    vm.create_snapshot("before the upgrade", "taken by a person", quiesce=False)
    leave_snapshot(settings, vm, "of-another-hub", owner="agent-2")
    other = simulated.add_vm("other", disks=[DiskSpec(capacity_bytes=1 << 20)])
    standing = ["before the upgrade", "sendense-of-another-hub", "sendense-job-1"]
    with RunningAgent(hub, settings):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        assert names(vm) == standing
        failing = simulated.faults.set("snapshot-remove-fail", vm="other", times=1)
        start_job(session, other, "job-2")
        assert session.event("job_opened").job_id == "job-2"
        send_plan(session, "job-2", None)
        warnings = session.event("job_uploaded").warnings
        assert [one.code for one in warnings] == ["SNAPSHOT_LEFT_BEHIND"]
        assert failing.fired == 1
        wait_for_names(other)  # swept at once, with a look at every VM
        assert names(vm) == standing
        send_plan(session, "job-1", None)
        assert session.event("job_uploaded").job_id == "job-1"
        assert names(vm) == standing[:2]


@pytest.mark.hostile
def test_disks_that_a_job_left_unmerged_are_merged_when_their_files_get_free(
    hub: RecordingHub,
    simulated: SimulatedSite,
    settings: VsphereSettings,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeper, "INTERVAL_S", 0.05)
    with RunningAgent(hub, settings) as agent:
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        locked = simulated.faults.set("consolidation-needed", vm=vm.name, times=3)
        send_plan(session, "job-1", None)
        (warning,) = session.event("job_uploaded").warnings
        assert warning.code == "SNAPSHOT_LEFT_BEHIND"
        assert "is removed, but the disks need consolidation" in warning.message
        wait_for(lambda: not vm.consolidation_needed)
        assert names(vm) == []
        wait_for(lambda: simulated.faults.calls("ConsolidateVMDisks_Task") == 3)
        agent.stop()
    assert locked.fired == 3
    assert agent.clean


@pytest.mark.hostile
def test_disks_that_nobody_knows_who_left_are_merged_by_the_vm_s_next_backup_alone(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    simulated.faults.set("consolidation-needed", vm=vm.name, times=1)
    assert vm.consolidation_needed
    other = simulated.add_vm("other", disks=[DiskSpec(capacity_bytes=1 << 20)])
    leave_snapshot(settings, other, "died")
    with RunningAgent(hub, settings):
        session = hub.next_session()
        wait_for_names(other)  # the sweep has seen both
        back_up(session, other, "job-1", None)
        assert simulated.faults.calls("ConsolidateVMDisks_Task") == 0
        back_up(session, vm, "job-2", None)
        assert simulated.faults.calls("ConsolidateVMDisks_Task") == 1
    assert not vm.consolidation_needed
