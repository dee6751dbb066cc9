"""Jobs of the real agent: a simulated host on one side, a recording hub on the other."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from agent.areas import EXTENT_BYTES
from agent.backup_vm import BackupJob
from agent.job_tools import JobTools
from agent.pipeline import EncoderPool
from agent.sweeper import Sweeper
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from sendense.channel import open_channel
from sendense.clusters import CLUSTER_BYTES
from sendense.v1 import agent_session_pb2, backup_pb2
from shared.errors import SendenseError
from shared.grpc_errors import abort_with
from simulator.machines import SimulatedVm
from simulator.site import DiskSpec, SimulatedSite
from tests.unit.agent.drawn_disks import drawn
from tests.unit.agent.recording_hub import DEADLINE_S, HubSession, RecordingHub, Upload
from tests.unit.agent.running_agent import RunningAgent, back_up, send_plan, start_job

FIRST = drawn("aB.c" + "." * 60 + "D" * 40)
SECOND = drawn("xyz", cut_bytes=512)


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    return simulated.add_vm(
        "pgtest1",
        disks=[
            DiskSpec(capacity_bytes=len(FIRST), content=FIRST),
            DiskSpec(capacity_bytes=len(SECOND), content=SECOND, controller=1),
        ],
    )


@pytest.fixture
def agent(hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm) -> Iterator[RunningAgent]:
    with RunningAgent(hub, settings) as agent:
        yield agent


@pytest.fixture
def session(hub: RecordingHub, agent: RunningAgent) -> HubSession:
    return hub.next_session()


class Hold:
    """A hub that stops taking frames at the first one, until it is told to go on or the RPC ends."""

    def __init__(self, hub: RecordingHub) -> None:
        self.reached = threading.Event()
        hub.before_frame = self._hold

    def _hold(self, upload: Upload, context: grpc.ServicerContext) -> None:
        self.reached.set()
        ended = threading.Event()
        if context.add_callback(ended.set):
            assert ended.wait(DEADLINE_S)

    def wait(self) -> None:
        assert self.reached.wait(DEADLINE_S)


def restored(hub: RecordingHub, job_id: str, index: int, base: bytes) -> bytes:
    disk = bytearray(base)
    hub.uploads[job_id, index].apply_to(disk)
    return bytes(disk)


def test_full_backup_uploads_every_disk_and_removes_the_snapshot(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm
) -> None:
    opened = back_up(session, vm, "job-1", None, None)
    assert vm.snapshots == []
    assert [(d.disk_index, d.vmware_disk_key, d.capacity_bytes) for d in opened.disks] == [
        (0, vm.disks[0].key, len(FIRST)),
        (1, vm.disks[1].key, len(SECOND)),
    ]
    assert all(disk.change_id for disk in opened.disks)
    assert opened.consistency_level == backup_pb2.CONSISTENCY_LEVEL_CRASH
    assert restored(hub, "job-1", 0, bytes(len(FIRST))) == FIRST
    assert restored(hub, "job-1", 1, bytes(len(SECOND))) == SECOND
    assert 0 not in hub.uploads["job-1", 0].sizes.values()


def test_increment_reads_what_changed_and_keeps_new_zeros(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm
) -> None:
    opened = back_up(session, vm, "job-1", None, None)
    vm.disks[0].write(2 * CLUSTER_BYTES + 700, b"changed")
    vm.disks[0].zero(70 * CLUSTER_BYTES, 2 * CLUSTER_BYTES)
    bases = [disk.change_id for disk in opened.disks]
    hub.bases = {("job-2", 0): FIRST, ("job-2", 1): SECOND}
    again = back_up(session, vm, "job-2", *bases)
    assert [disk.change_id for disk in again.disks] != bases
    upload = hub.uploads["job-2", 0]
    assert upload.sizes.keys() == {2, 70, 71}
    assert upload.sizes[70] == upload.sizes[71] == 0
    assert upload.open.bytes_planned < len(FIRST)
    assert not upload.open.full_instead
    assert restored(hub, "job-2", 0, FIRST) == vm.disks[0].content
    assert hub.uploads["job-2", 1].batches == []


def test_full_reads_allocated_areas_alone_or_the_whole_disk_when_the_host_refuses(
    hub: RecordingHub, simulated: SimulatedSite, session: HubSession
) -> None:
    capacity = 1 << 30
    thin = simulated.add_vm("thin", disks=[DiskSpec(capacity_bytes=capacity, content=drawn("ab"))])
    back_up(session, thin, "job-1", None)
    assert hub.uploads["job-1", 0].open.bytes_planned < 16 << 20
    simulated.faults.set("nfc-error-reply", on="allocated")
    back_up(session, thin, "job-2", None)
    assert hub.uploads["job-2", 0].open.bytes_planned == capacity
    assert hub.uploads["job-2", 0].sizes.keys() == hub.uploads["job-1", 0].sizes.keys()


def test_skipped_disk_is_named_in_the_job(
    simulated: SimulatedSite, hub: RecordingHub, session: HubSession
) -> None:
    mixed = simulated.add_vm(
        "mixed",
        disks=[
            DiskSpec(capacity_bytes=1 << 20, mode="independent_persistent"),
            DiskSpec(capacity_bytes=1 << 20, content=drawn("a")),
        ],
    )
    opened = back_up(session, mixed, "job-1", None)
    assert [(w.code, w.disk_label) for w in opened.warnings] == [
        ("DISK_SKIPPED", mixed.disks[0].label)
    ]
    assert [disk.vmware_disk_key for disk in opened.disks] == [mixed.disks[1].key]


@pytest.mark.parametrize("stage", ["waiting for the plan", "uploading"])
def test_cancel_ends_the_job_and_removes_its_snapshot(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm, stage: str
) -> None:
    hold = Hold(hub)
    start_job(session, vm, "job-1")
    session.event("job_opened")
    assert len(vm.snapshots) == 1
    if stage == "uploading":
        send_plan(session, "job-1", None, None)
        hold.wait()
    session.command(cancel_job=agent_session_pb2.CancelJob(job_id="job-1", reason="not tonight"))
    failed = session.event("job_failed")
    assert failed.cancelled
    assert "not tonight" in failed.error.message
    assert vm.snapshots == []


def test_cancel_of_a_queued_job_is_answered_at_once(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm
) -> None:
    start_job(session, vm, "job-1")
    session.event("job_opened")
    # The same VM: waits for the first job.
    start_job(session, vm, "job-2")
    session.command(cancel_job=agent_session_pb2.CancelJob(job_id="job-2"))
    failed = session.event("job_failed")
    assert (failed.job_id, failed.cancelled) == ("job-2", True)
    assert [snapshot.name for snapshot in vm.snapshots] == ["sendense-job-1"]
    send_plan(session, "job-1", None, None)
    assert session.event("job_uploaded").job_id == "job-1"


def test_cancel_of_a_job_that_ended_changes_nothing(session: HubSession, vm: SimulatedVm) -> None:
    back_up(session, vm, "job-1", None, None)
    session.command(cancel_job=agent_session_pb2.CancelJob(job_id="job-1"))
    back_up(session, vm, "job-2", None, None)
    assert not session.has("job_failed")


def test_first_error_ends_the_other_disk_and_is_the_job_s_reason(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm
) -> None:
    class RepositoryFull(SendenseError):
        code = "REPOSITORY_FULL"
        status = grpc.StatusCode.RESOURCE_EXHAUSTED
        text = "no space left"

    both = threading.Barrier(2)

    def one_fails_one_hangs(upload: Upload, context: grpc.ServicerContext) -> None:
        ended = threading.Event()
        watched = context.add_callback(ended.set)
        both.wait(DEADLINE_S)
        if upload.open.disk_index == 1:
            abort_with(context, RepositoryFull())
        assert not watched or ended.wait(DEADLINE_S)

    hub.before_frame = one_fails_one_hangs
    start_job(session, vm, "job-1")
    session.event("job_opened")
    send_plan(session, "job-1", None, None)
    failed = session.event("job_failed")
    assert (failed.error.reason, failed.cancelled) == ("REPOSITORY_FULL", False)
    assert failed.error.message == "no space left"
    assert vm.snapshots == []


@pytest.mark.hostile
def test_cut_connection_is_replaced_and_the_job_goes_on(
    hub: RecordingHub, simulated: SimulatedSite, session: HubSession, vm: SimulatedVm
) -> None:
    simulated.faults.set("nfc-cut", vm=vm.name, disk=0, times=1, skip=2)
    back_up(session, vm, "job-1", None, None)
    assert restored(hub, "job-1", 0, bytes(len(FIRST))) == FIRST
    simulated.faults.assert_all_fired()


@pytest.mark.hostile
def test_disk_that_is_held_when_it_is_opened_first_is_backed_up(
    hub: RecordingHub, simulated: SimulatedSite, session: HubSession, vm: SimulatedVm
) -> None:
    simulated.faults.set("nfc-error-reply", vm=vm.name, disk=0, on="open", times=1)
    back_up(session, vm, "job-1", None, None)
    assert restored(hub, "job-1", 0, bytes(len(FIRST))) == FIRST
    simulated.faults.assert_all_fired()


@pytest.mark.hostile
def test_place_that_cannot_be_read_fails_the_job_and_removes_the_snapshot(
    simulated: SimulatedSite, session: HubSession, vm: SimulatedVm
) -> None:
    fault = simulated.faults.set("nfc-error-reply", vm=vm.name, disk=0, offset=EXTENT_BYTES)
    start_job(session, vm, "job-1")
    session.event("job_opened")
    send_plan(session, "job-1", None, None)
    assert session.event("job_failed").error.reason == "NFC_READ_FAILED"
    assert vm.snapshots == []
    assert fault.fired > 1
    simulated.faults.clear()
    back_up(session, vm, "job-2", None, None)


def test_vm_that_is_gone_fails_the_job(
    simulated: SimulatedSite, session: HubSession, vm: SimulatedVm
) -> None:
    simulated.remove_vm(vm)
    start_job(session, vm, "job-1")
    failed = session.event("job_failed")
    assert (failed.error.reason, failed.cancelled) == ("VM_NOT_FOUND", False)


def test_vm_without_disks_fails_before_a_snapshot(
    simulated: SimulatedSite, session: HubSession
) -> None:
    bare = simulated.add_vm("bare")
    start_job(session, bare, "job-1")
    assert session.event("job_failed").error.reason == "NO_DISKS"
    assert bare.snapshots == []


def test_plan_for_other_disks_than_the_snapshot_s_fails_the_job(
    session: HubSession, vm: SimulatedVm
) -> None:
    start_job(session, vm, "job-1")
    session.event("job_opened")
    send_plan(session, "job-1", None)
    assert session.event("job_failed").error.reason == "PROTOCOL_VIOLATION"
    assert vm.snapshots == []


def test_jobs_beyond_the_limit_wait_for_their_turn(
    hub: RecordingHub, simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    other = simulated.add_vm("other", disks=[DiskSpec(capacity_bytes=1 << 20)])
    with RunningAgent(hub, settings, jobs_in_parallel=1):
        session = hub.next_session()
        start_job(session, vm, "job-1")
        start_job(session, other, "job-2")
        assert session.event("job_opened").job_id == "job-1"
        assert other.snapshots == []
        assert not session.has("job_opened")
        send_plan(session, "job-1", None, None)
        assert session.event("job_uploaded").job_id == "job-1"
        assert session.event("job_opened").job_id == "job-2"
        send_plan(session, "job-2", None)
        assert session.event("job_uploaded").job_id == "job-2"


def test_stopping_the_agent_removes_the_snapshot_and_says_so(
    hub: RecordingHub, agent: RunningAgent, session: HubSession, vm: SimulatedVm
) -> None:
    hold = Hold(hub)
    start_job(session, vm, "job-1")
    session.event("job_opened")
    send_plan(session, "job-1", None, None)
    hold.wait()
    agent.stop()
    assert agent.clean
    failed = session.event("job_failed")
    assert (failed.error.reason, failed.cancelled) == ("AGENT_STOPPING", False)
    assert vm.snapshots == []
    assert session.agent_left.wait(DEADLINE_S)


def test_plan_that_never_comes_fails_the_job(
    hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    events: list[agent_session_pb2.SessionRequest] = []
    start = agent_session_pb2.StartJob(
        job_id="job-1", vmware_vm_id=vm.moid, instance_uuid=vm.instance_uuid, vm_name=vm.name
    )
    with VsphereSite.connect(settings) as site, EncoderPool(1) as encoders:
        sweeper = Sweeper(site, lambda: {"job-1"})
        tools = JobTools(
            site=site,
            sweeper=sweeper,
            encoders=encoders,
            open_upload_channel=lambda: open_channel(hub.address),
            disks_in_parallel=1,
            plan_wait_s=0.05,
        )
        tools.presence.came()
        BackupJob(start, "agent-1", tools, events.append).run()
        sweeper.close(DEADLINE_S)
    assert [event.WhichOneof("event") for event in events] == ["job_opened", "job_failed"]
    assert events[1].job_failed.error.reason == "PLAN_OVERDUE"
    assert vm.snapshots == []
