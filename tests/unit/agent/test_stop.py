"""How the agent ends: what it says of snapshots that stay, and that nothing of it goes on."""

import configparser
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent import main
from agent.sweeper import Sweeper
from agent.vsphere import snapshot_removal
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.machines import SimulatedVm
from simulator.site import DiskSpec, SimulatedSite
from tests.unit.agent.recording_hub import DEADLINE_S, RecordingHub
from tests.unit.agent.running_agent import RunningAgent, send_plan, start_job

pytestmark = pytest.mark.hostile

UNIT = Path(__file__).parents[3] / "deploy" / "systemd" / "sendense-agent.service"
OWNER = "agent-1"


@pytest.fixture
def vm(simulated: SimulatedSite) -> Iterator[SimulatedVm]:
    yield simulated.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=1 << 20)])
    simulated.faults.clear()


def test_snapshot_that_a_job_left_behind_is_told_at_the_end(
    hub: RecordingHub,
    simulated: SimulatedSite,
    settings: VsphereSettings,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 1)
    simulated.faults.set("snapshot-remove-fail", vm=vm.name)
    with RunningAgent(hub, settings) as agent:
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        send_plan(session, "job-1", None)
        assert session.event("job_uploaded").warnings
        agent.stop()
    assert [one.name for one in vm.snapshots] == ["sendense-job-1"]
    assert agent.clean is False


def test_snapshot_that_was_swept_since_its_job_is_not_told_at_the_end(
    hub: RecordingHub,
    simulated: SimulatedSite,
    settings: VsphereSettings,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 1)
    simulated.faults.set("snapshot-remove-fail", vm=vm.name, times=1)
    with RunningAgent(hub, settings) as agent:
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        send_plan(session, "job-1", None)
        assert session.event("job_uploaded").warnings
        # The next job begins once the sweep is done with the VM.
        start_job(session, vm, "job-2")
        assert list(session.event("job_opened").other_snapshots) == []
        send_plan(session, "job-2", None)
        assert not session.event("job_uploaded").warnings
        agent.stop()
    assert vm.snapshots == []
    assert agent.clean is True


@pytest.mark.parametrize("trouble", ["snapshot-remove-fail", "task-stall"])
def test_removals_of_a_sweeper_that_is_closed_end(
    simulated: SimulatedSite,
    settings: VsphereSettings,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 1_000_000)
    with VsphereSite.connect(replace(settings, timeout_s=2)) as site:
        site.take_snapshot(
            job_id="died",
            vm_moref=vm.moid,
            instance_uuid=vm.instance_uuid,
            quiesce=False,
            owner=OWNER,
        )
        fault = simulated.faults.set(trouble, vm=vm.name)
        made = Sweeper(site, set)
        made.registered(OWNER)
        assert fault.wait_fired(DEADLINE_S)
        made.close(DEADLINE_S)
        working = [one for one in threading.enumerate() if one.name in ("sweep-vm", "sweeper")]
        for thread in working:
            thread.join(DEADLINE_S)
        assert not any(thread.is_alive() for thread in working)
    assert [one.name for one in vm.snapshots] == ["sendense-died"]


def test_service_manager_waits_for_longer_than_the_agent_cleans_up() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    ends_s = main.FAREWELL_S + 6 * main.THREAD_END_S
    assert float(unit["Service"]["TimeoutStopSec"]) > main.CLEAN_UP_S + ends_s
