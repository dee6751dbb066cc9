"""What an agent reports of its site's VMs, and what becomes of jobs when the site changes faces."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.vsphere.settings import VsphereSettings
from agent.vsphere.snapshot_tree import description_for
from simulator.site import DiskSpec, SimulatedSite
from tests.unit.agent.recording_hub import RecordingHub
from tests.unit.agent.running_agent import RunningAgent, start_job

pytestmark = pytest.mark.hostile


def test_snapshots_and_disks_apart_are_reported(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    vm = simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=1 << 20)])
    simulated.add_vm("plain", disks=[DiskSpec(capacity_bytes=1 << 20)])
    vm.create_snapshot("before%2fupdate", age=timedelta(days=5))
    vm.create_snapshot("sendense-1", description_for("agent-of-elsewhere", "rome", "1"))
    vm.create_snapshot("sendense-by-hand", "a person's")
    simulated.faults.set("consolidation-needed", vm="pg")
    with RunningAgent(hub, settings):
        found = {one.name: one for one in hub.next_session().event("inventory").virtual_machines}
    pg = found["pg"]
    assert [(one.name, one.is_sendense) for one in pg.snapshots] == [
        ("before/update", False),
        ("sendense-1", True),
        ("sendense-by-hand", False),
    ]
    assert [one.vmware_snapshot_id for one in pg.snapshots] == [one.moid for one in vm.snapshots]
    created = pg.snapshots[0].created_at.ToDatetime(tzinfo=UTC)
    assert abs(datetime.now(UTC) - timedelta(days=5) - created) < timedelta(hours=1)
    assert pg.snapshot_count == 3
    assert pg.consolidation_needed
    assert list(found["plain"].snapshots) == []
    assert not found["plain"].consolidation_needed
    assert [len(one.alarms) for one in found.values()] == [0, 0]  # those are the hub's


def test_job_at_a_host_that_shows_another_certificate_fails_and_says_so(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    vm = simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=1 << 20)])
    with RunningAgent(hub, settings):
        session = hub.next_session()
        session.event("inventory")
        new = simulated.change_certificate()
        logins = simulated.faults.calls("Login")
        start_job(session, vm, "job-1")
        failed = session.event("job_failed")
    assert failed.error.reason == "VSPHERE_CERTIFICATE_MISMATCH"
    assert new.replace(":", "") in failed.error.message.replace(":", "")
    assert list(failed.warnings) == []
    assert simulated.faults.calls("Login") == logins
    assert vm.snapshots == []
