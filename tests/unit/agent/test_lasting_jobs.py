"""Jobs that outlive their session, and those that an earlier run of the agent began."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from agent.errors import SnapshotLost
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from sendense.v1 import agent_session_pb2 as pb
from simulator.machines import SimulatedVm
from simulator.site import DiskSpec, SimulatedSite
from tests.unit.agent.drawn_disks import drawn
from tests.unit.agent.recording_hub import DEADLINE_S, HubSession, RecordingHub, Upload
from tests.unit.agent.running_agent import (
    RunningAgent,
    back_up,
    resume_job,
    send_plan,
    start_job,
)

pytestmark = pytest.mark.hostile

CONTENT = drawn("aB.c" + "." * 60 + "D" * 40)
OWNER = "agent-1"


@pytest.fixture
def vm(simulated: SimulatedSite) -> Iterator[SimulatedVm]:
    disk = DiskSpec(capacity_bytes=len(CONTENT), content=CONTENT)
    yield simulated.add_vm("pgtest1", disks=[disk])
    simulated.faults.clear()


def until(holds: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end_s, f"never: {what}"
        time.sleep(0.02)


def lose(hub: RecordingHub, session: HubSession) -> HubSession:
    """End a session; the next one of the same agent."""
    session.end()
    return hub.next_session()


def take_for(settings: VsphereSettings, vm: SimulatedVm, job_id: str) -> pb.JobOpened:
    """What an agent that died leaves: the job's snapshot, told to the hub."""
    with VsphereSite.connect(settings) as site:
        taken = site.take_snapshot(
            job_id=job_id,
            vm_moref=vm.moid,
            instance_uuid=vm.instance_uuid,
            quiesce=False,
            owner=OWNER,
        )
    return pb.JobOpened(
        job_id=job_id,
        snapshot=taken.moref,
        disks=[
            pb.SnapshotDisk(
                disk_index=disk.index,
                vmware_disk_key=disk.key,
                disk_uuid=disk.uuid,
                label=disk.label,
                capacity_bytes=disk.capacity_bytes,
                change_id=disk.change_id,
            )
            for disk in taken.disks
        ],
    )


def finish(session: HubSession, vm: SimulatedVm, job_id: str) -> None:
    """Give the plan to a job that waits for it, and see its good end."""
    assert session.event("job_opened").job_id == job_id
    send_plan(session, job_id, None)
    assert_uploaded(session, vm, job_id)


def assert_uploaded(session: HubSession, vm: SimulatedVm, job_id: str) -> None:
    uploaded = session.event("job_uploaded")
    assert (uploaded.job_id, list(uploaded.warnings)) == (job_id, [])
    assert session.event("job_read").job_id == job_id
    assert not session.has("job_failed")
    assert vm.snapshots == []


def restored(hub: RecordingHub, job_id: str) -> bytes:
    disk = bytearray(len(CONTENT))
    hub.uploads[job_id, 0].apply_to(disk)
    return bytes(disk)


def test_job_goes_on_when_its_session_is_lost_while_the_snapshot_is_taken(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    stall = simulated.faults.set("task-stall", vm=vm.name, times=1)
    with RunningAgent(hub, replace(settings, timeout_s=4)):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        assert stall.wait_fired(DEADLINE_S)
        session = lose(hub, session)
        assert list(session.register.job_ids) == ["job-1"]
        assert not session.has("job_opened")
        simulated.faults.clear()
        finish(session, vm, "job-1")
    assert restored(hub, "job-1") == CONTENT


def test_job_goes_on_when_its_session_is_lost_while_it_waits_for_the_plan(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    with RunningAgent(hub, settings):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        first = session.event("job_opened")
        for _ in range(2):
            session = lose(hub, session)
            assert list(session.register.job_ids) == ["job-1"]
            assert session.event("job_opened") == first
            assert [one.name for one in vm.snapshots] == ["sendense-job-1"]
        send_plan(session, "job-1", None)
        assert_uploaded(session, vm, "job-1")
    assert restored(hub, "job-1") == CONTENT


def test_job_goes_on_when_its_session_is_lost_during_the_upload(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold(upload: Upload, context: grpc.ServicerContext) -> None:
        reached.set()
        assert go_on.wait(DEADLINE_S)

    hub.before_frame = hold
    with RunningAgent(hub, settings):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        send_plan(session, "job-1", None)
        assert reached.wait(DEADLINE_S)
        session = lose(hub, session)
        assert list(session.register.job_ids) == ["job-1"]
        go_on.set()
        assert_uploaded(session, vm, "job-1")
        assert not session.has("job_opened")  # it has its plan
    assert restored(hub, "job-1") == CONTENT


def test_job_goes_on_when_its_session_is_lost_after_the_last_disk(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    with RunningAgent(hub, replace(settings, timeout_s=4)):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        stall = simulated.faults.set("task-stall", vm=vm.name, times=1)
        send_plan(session, "job-1", None)
        # It is told before the snapshot is removed, and that takes its time.
        session.event("job_read")
        assert stall.wait_fired(DEADLINE_S)
        assert len(vm.snapshots) == 1
        assert not session.has("job_uploaded")
        session = lose(hub, session)
        assert list(session.register.job_ids) == ["job-1"]
        simulated.faults.clear()
        assert_uploaded(session, vm, "job-1")


@pytest.mark.parametrize("end", ["job_uploaded", "job_failed"])
def test_end_of_a_job_is_repeated_until_the_hub_closed_it(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm, end: str
) -> None:
    hub.answers_ends = False
    with RunningAgent(hub, settings):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        if end == "job_failed":
            session.command(cancel_job=pb.CancelJob(job_id="job-1"))
        else:
            send_plan(session, "job-1", None)
        told = session.event(end)
        session = lose(hub, session)
        assert list(session.register.job_ids) == ["job-1"]
        assert session.event(end) == told
        assert session.has("job_read") == (end == "job_uploaded")
        assert not session.has("job_opened")
        # A job of which the hub has yet to hear is not begun again.
        start_job(session, vm, "job-1")
        session.command(job_closed=pb.JobClosed(job_id="job-1"))
        session.command(refresh_inventory=pb.RefreshInventory())
        session.event("inventory")
        session = lose(hub, session)
        assert list(session.register.job_ids) == []
        session.event("heartbeat")
        assert not session.has(end)
        assert not session.has("job_opened")


def test_hub_that_closes_no_jobs_is_told_their_end_once(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    hub.closes_jobs = False
    with RunningAgent(hub, settings):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        send_plan(session, "job-1", None)
        session.event("job_uploaded")
        assert not session.has("job_read")
        session = lose(hub, session)
        assert list(session.register.job_ids) == []
        # One that runs when the session ends is given up by such a hub.
        start_job(session, vm, "job-2")
        session.event("job_opened")
        session = lose(hub, session)
        assert session.event("job_failed").error.reason == "SESSION_LOST"
        until(lambda: not vm.snapshots, "the snapshot is removed")


def test_second_run_of_the_agent_resumes_the_job(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    opened = take_for(settings, vm, "job-1")
    (standing,) = vm.snapshots
    hub.live_job_ids = ["job-1"]
    with RunningAgent(hub, settings):
        session = hub.next_session()
        resume_job(session, vm, opened)
        again = session.event("job_opened")
        assert again.snapshot == opened.snapshot
        assert list(again.disks) == list(opened.disks)
        assert vm.snapshots == [standing]
        resume_job(session, vm, opened)  # of a job that runs: changes nothing
        send_plan(session, "job-1", None)
        assert_uploaded(session, vm, "job-1")
        back_up(session, vm, "job-2", None)
    assert restored(hub, "job-1") == CONTENT


def test_snapshot_of_a_live_job_is_not_swept_until_the_hub_decided(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm, simulated: SimulatedSite
) -> None:
    other = simulated.add_vm("other", disks=[DiskSpec(capacity_bytes=1 << 20)])
    take_for(settings, vm, "live")
    take_for(settings, other, "dead")
    hub.live_job_ids = ["live"]
    with RunningAgent(hub, settings):
        session = hub.next_session()
        until(lambda: not other.snapshots, "what nobody needs is swept")
        # A job of the same VM sweeps before it begins.
        assert list(back_up(session, vm, "job-2", None).other_snapshots) == ["sendense-live"]
        assert [one.name for one in vm.snapshots] == ["sendense-live"]
        session.command(job_closed=pb.JobClosed(job_id="live"))
        until(lambda: not vm.snapshots, "the snapshot of the closed job is swept")


def test_cancelled_job_of_an_earlier_run_is_ended_and_its_snapshot_swept(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    take_for(settings, vm, "job-1")
    hub.live_job_ids = ["job-1"]
    with RunningAgent(hub, settings):
        session = hub.next_session()
        session.command(cancel_job=pb.CancelJob(job_id="job-1", reason="not tonight"))
        failed = session.event("job_failed")
        assert (failed.job_id, failed.cancelled) == ("job-1", True)
        until(lambda: not vm.snapshots, "the snapshot is swept")


@pytest.mark.parametrize("what", ["gone", "other-disks", "other-moref"])
def test_job_whose_snapshot_is_not_what_it_was_fails_and_leaves_none(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm, what: str
) -> None:
    opened = take_for(settings, vm, "job-1")
    if what == "gone":
        with VsphereSite.connect(settings) as site:
            site.remove_snapshots_of_job("job-1", vm.moid, OWNER)
    elif what == "other-disks":
        opened.disks[0].change_id = "52 00/7"
    else:
        opened.snapshot = "none"
    hub.live_job_ids = ["job-1"]
    with RunningAgent(hub, settings):
        session = hub.next_session()
        resume_job(session, vm, opened)
        failed = session.event("job_failed")
        assert failed.error.reason == SnapshotLost.code
        assert "was interrupted" in failed.error.message
        assert not failed.cancelled
        assert list(failed.warnings) == []
        assert vm.snapshots == []
        assert not session.has("job_opened")


def test_snapshot_of_another_owner_is_not_resumed_and_stays(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    opened = take_for(settings, vm, "job-1")
    hub.agent_id = "agent-2"
    hub.live_job_ids = ["job-1"]
    with RunningAgent(hub, settings):
        session = hub.next_session()
        resume_job(session, vm, opened)
        assert session.event("job_failed").error.reason == SnapshotLost.code
    assert [one.name for one in vm.snapshots] == ["sendense-job-1"]


@pytest.mark.parametrize("ended_by", ["cancel", "stop"])
def test_resumed_job_that_still_waits_removes_its_snapshot_when_it_is_ended(
    hub: RecordingHub,
    simulated: SimulatedSite,
    settings: VsphereSettings,
    vm: SimulatedVm,
    ended_by: str,
) -> None:
    other = simulated.add_vm("other", disks=[DiskSpec(capacity_bytes=1 << 20)])
    opened = take_for(settings, vm, "job-1")
    hub.live_job_ids = ["job-1"]
    with RunningAgent(hub, settings, jobs_in_parallel=1) as agent:
        session = hub.next_session()
        start_job(session, other, "job-2")
        session.event("job_opened")
        resume_job(session, vm, opened)
        if ended_by == "cancel":
            # However long the removal takes: commands for other jobs do not wait for it.
            simulated.faults.set("task-stall", vm=vm.name)
            session.command(cancel_job=pb.CancelJob(job_id="job-1"))
            send_plan(session, "job-2", None)
            session.event("job_uploaded")
            assert not session.has("job_failed")
            simulated.faults.clear()
            failed = session.event("job_failed")
            assert (failed.job_id, failed.cancelled) == ("job-1", True)
            assert vm.snapshots == []
        else:
            session.command(refresh_inventory=pb.RefreshInventory())
            session.event("inventory")
            session.event("inventory")
            agent.stop()
            assert agent.clean
    assert vm.snapshots == other.snapshots == []


def test_job_begun_again_removes_what_it_took_before(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    opened = take_for(settings, vm, "job-1")
    hub.live_job_ids = ["job-1"]
    with RunningAgent(hub, settings):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        again = session.event("job_opened")
        assert again.snapshot != opened.snapshot
        assert list(again.other_snapshots) == []
        assert [one.name for one in vm.snapshots] == ["sendense-job-1"]
        send_plan(session, "job-1", None)
        assert_uploaded(session, vm, "job-1")


@pytest.mark.parametrize("stage", ["waiting for the plan", "waiting for its turn"])
def test_job_whose_hub_stays_away_is_cleaned_up_and_told_later(
    settings: VsphereSettings, simulated: SimulatedSite, vm: SimulatedVm, stage: str
) -> None:
    other = simulated.add_vm("other", disks=[DiskSpec(capacity_bytes=1 << 20)])
    queued: dict[str, Any] = {"jobs_in_parallel": 1} if stage == "waiting for its turn" else {}
    with RecordingHub() as hub, RunningAgent(hub, settings, hub_wait_s=0.7, **queued):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        if queued:
            start_job(session, other, "job-2")
            session.command(refresh_inventory=pb.RefreshInventory())
            session.event("inventory")
            session.event("inventory")
        hub.close()
        until(lambda: not vm.snapshots, "the snapshot is removed while the hub is away")
        with RecordingHub(hub.port) as again:
            session = again.next_session()
            for _ in range(2 if queued else 1):
                failed = session.event("job_failed")
                assert failed.error.reason == "HUB_UNREACHABLE"
                assert "hub_wait_s" in failed.error.message
                assert list(failed.warnings) == []
            assert not session.has("job_opened")
            assert other.snapshots == []
            back_up(session, vm, "job-3", None)


def test_job_that_was_cancelled_while_the_hub_was_away_ends_when_it_is_told(
    settings: VsphereSettings, vm: SimulatedVm
) -> None:
    with RecordingHub() as hub, RunningAgent(hub, settings):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        hub.close()
        with RecordingHub(hub.port) as again:
            session = again.next_session()
            assert list(session.register.job_ids) == ["job-1"]
            session.command(cancel_job=pb.CancelJob(job_id="job-1"))
            failed = session.event("job_failed")
            assert (failed.job_id, failed.cancelled) == ("job-1", True)
            assert vm.snapshots == []


def test_job_that_the_hub_closed_before_its_end_ends(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    with RunningAgent(hub, settings):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        session.command(job_closed=pb.JobClosed(job_id="job-1"))
        assert session.event("job_failed").cancelled
        assert vm.snapshots == []
