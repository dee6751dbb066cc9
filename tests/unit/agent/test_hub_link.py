"""The agent's session: registering, reporting, losing the hub and finding it again."""

import time

import grpc
import pytest

from agent.vsphere.errors import CertificateMismatch, LoginFailed
from agent.vsphere.settings import VsphereSettings
from sendense.v1 import agent_session_pb2
from shared.errors import SendenseError
from shared.grpc_errors import abort_with
from simulator.site import DiskSpec, SimulatedSite
from tests.unit.agent.drawn_disks import drawn
from tests.unit.agent.recording_hub import DEADLINE_S, HubSession, RecordingHub
from tests.unit.agent.running_agent import RunningAgent, back_up, send_plan, start_job

HEARTBEATS = 20


def test_agent_registers_reports_its_inventory_and_keeps_its_heart_beating(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    vm = simulated.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=1 << 20)])
    with RunningAgent(hub, settings):
        session = hub.next_session()
        register = session.register
        assert (register.site, register.vsphere.address) == ("paris", simulated.address)
        assert register.hostname
        assert register.version
        assert register.vsphere.api_type == "HostAgent"
        (machine,) = session.event("inventory").virtual_machines
        assert (machine.name, machine.vmware_vm_id) == ("pgtest1", vm.moid)
        assert machine.instance_uuid == vm.instance_uuid
        (disk,) = machine.disks
        assert (disk.vmware_disk_key, disk.capacity_bytes) == (vm.disks[0].key, 1 << 20)
        session.event("heartbeat")
        session.event("heartbeat")


def test_inventory_is_reported_when_it_changed_and_when_asked(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    simulated.add_vm("one")
    with RunningAgent(hub, settings, inventory_interval_s=0.05):
        session = hub.next_session()
        assert len(session.event("inventory").virtual_machines) == 1
        session.event("heartbeat")  # several intervals have passed
        assert not session.has("inventory")
        simulated.add_vm("two")
        assert len(session.event("inventory").virtual_machines) == 2
        session.command(refresh_inventory=agent_session_pb2.RefreshInventory())
        assert len(session.event("inventory").virtual_machines) == 2


def names(session: HubSession, *job_ids: str) -> bool:
    """One of the next heartbeats names exactly these jobs."""
    return any(
        sorted(session.event("heartbeat").job_ids) == sorted(job_ids) for _ in range(HEARTBEATS)
    )


@pytest.mark.hostile
def test_heartbeats_name_the_jobs_that_run_or_wait_until_they_ended(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    content = drawn("a")
    one, two = (
        simulated.add_vm(name, disks=[DiskSpec(capacity_bytes=len(content), content=content)])
        for name in ("one", "two")
    )
    with RunningAgent(hub, settings, jobs_in_parallel=1):
        session = hub.next_session()
        assert names(session)
        start_job(session, one, "job-1")
        session.event("job_opened")
        start_job(session, two, "job-2")
        assert names(session, "job-1", "job-2")
        send_plan(session, "job-1", None)
        session.event("job_uploaded")
        session.event("job_opened")
        assert names(session, "job-2")
        session.command(cancel_job=agent_session_pb2.CancelJob(job_id="job-2"))
        session.event("job_failed")
        assert names(session)


def test_heart_beats_although_other_events_come_more_often(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    with RunningAgent(hub, settings):
        session = hub.next_session()
        deadline_s = time.monotonic() + DEADLINE_S
        while not session.has("heartbeat"):
            assert time.monotonic() < deadline_s
            session.command(refresh_inventory=agent_session_pb2.RefreshInventory())
            session.event("inventory")


def test_lost_hub_means_a_new_session_when_it_is_back(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    vm = simulated.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=1 << 20, content=drawn("a"))])
    with RecordingHub() as hub, RunningAgent(hub, settings, jobs_in_parallel=3):
        first = hub.next_session().register
        assert (first.keeps_jobs, first.jobs_in_parallel, list(first.job_ids)) == (True, 3, [])
        assert first.run_id
        hub.close()
        with RecordingHub(hub.port) as again:
            session = again.next_session()
            assert session.register.run_id == first.run_id
            back_up(session, vm, "job-2", None)
            assert vm.snapshots == []


def test_session_that_the_hub_ends_in_order_is_followed_by_another(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    with RunningAgent(hub, settings):
        hub.next_session().end()
        hub.next_session().event("inventory")


def test_refused_agent_keeps_trying(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    class SiteTaken(SendenseError):
        code = "SITE_TAKEN"
        status = grpc.StatusCode.ALREADY_EXISTS
        text = "another agent serves the site"

    refusals = [1, 2]

    def refuse_twice(context: grpc.ServicerContext) -> None:
        if refusals:
            refusals.pop()
            abort_with(context, SiteTaken())

    hub.before_register = refuse_twice
    with RunningAgent(hub, settings):
        hub.next_session().event("inventory")
    assert refusals == []


def test_agent_stops_while_no_hub_is_there(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    with RecordingHub() as hub:
        pass
    agent = RunningAgent(hub, settings)
    with agent:
        pass
    assert agent.clean


def test_unknown_command_is_passed_over(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    with RunningAgent(hub, settings):
        session = hub.next_session()
        session.event("inventory")
        session.command()
        session.command(refresh_inventory=agent_session_pb2.RefreshInventory())
        session.event("inventory")


@pytest.mark.parametrize("wrong", ["password", "certificate"])
def test_wrong_password_or_certificate_ends_the_agent(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings, wrong: str
) -> None:
    bad = {
        "password": {"password": "wrong-" + settings.password},
        "certificate": {"certificate_sha256": "0" * 64},
    }[wrong]
    agent = RunningAgent(hub, VsphereSettings(**{**settings.__dict__, **bad}))
    with pytest.raises((LoginFailed, CertificateMismatch)) as caught, agent:
        agent._thread.join(DEADLINE_S)
        assert not agent._thread.is_alive()
    assert settings.password not in str(caught.value)
    assert hub.sessions.empty()


def test_inventory_that_could_not_be_read_is_reported_later_though_unchanged(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    simulated.add_vm("one")
    with RunningAgent(hub, settings):
        session = hub.next_session()
        first = session.event("inventory")
        simulated.faults.fail_method("CreateContainerView", times=1)
        session.command(refresh_inventory=agent_session_pb2.RefreshInventory())
        assert session.event("inventory") == first
        simulated.faults.assert_all_fired()
