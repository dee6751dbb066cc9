"""How the agent reads a disk when tracking lies, is reset, or cannot be asked; and what it tells."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from agent.vsphere.settings import VsphereSettings
from sendense.clusters import CLUSTER_BYTES
from sendense.v1 import agent_session_pb2, backup_pb2, upload_pb2
from shared.grpc_errors import abort_with
from simulator.machines import SimulatedVm
from simulator.site import DiskSpec, SimulatedSite
from tests.unit.agent.drawn_disks import cluster_of, drawn
from tests.unit.agent.recording_hub import (
    DEADLINE_S,
    HubSession,
    LayerDamaged,
    RecordingHub,
    Upload,
)
from tests.unit.agent.running_agent import (
    COMPARED,
    RunningAgent,
    back_up,
    send_plan,
    start_job,
)

pytestmark = pytest.mark.hostile

K = CLUSTER_BYTES
# Data in clusters 0 to 63 and 124 to 143, holes elsewhere.
BEFORE = drawn("aBcd" * 16 + "." * 60 + "eF" * 10 + "." * 56, cut_bytes=512)
# The host tells of whole chunks: the disk's last cluster always counts as allocated.
TAIL_BYTES = K - 512
OTHER_UUID = "52 00 00 00 00 00 00 00-00 00 00 00 00 00 00 01/7"


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    vm = simulated.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=len(BEFORE))])
    for first, end in ((0, 64), (124, 144)):
        vm.disks[0].write(first * K, BEFORE[first * K : end * K])
    return vm


@pytest.fixture
def session(hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm) -> Iterator[HubSession]:
    with RunningAgent(hub, settings):
        yield hub.next_session()


@pytest.fixture
def thorough(hub: RecordingHub, settings: VsphereSettings, vm: SimulatedVm) -> Iterator[HubSession]:
    """An agent that samples everything that tracking calls unchanged."""
    with RunningAgent(hub, settings, sample_least=len(BEFORE) // K + 1):
        yield hub.next_session()


def full(hub: RecordingHub, session: HubSession, vm: SimulatedVm) -> str:
    """The first job; returns the change id that the next one begins from."""
    opened = back_up(session, vm, "job-1", None)
    assert restored(hub, "job-1", bytes(len(BEFORE))) == BEFORE
    hub.bases["job-2", 0] = BEFORE
    return str(opened.disks[0].change_id)


def restored(hub: RecordingHub, job_id: str, base: bytes) -> bytes:
    disk = bytearray(base)
    hub.uploads[job_id, 0].apply_to(disk)
    return bytes(disk)


def increment(
    session: HubSession, vm: SimulatedVm, base: str | None
) -> list[backup_pb2.BackupWarning]:
    """The second job, which has to succeed; returns its warnings."""
    start_job(session, vm, "job-2")
    session.event("job_opened")
    send_plan(session, "job-2", base)
    uploaded = session.event("job_uploaded")
    assert isinstance(uploaded, agent_session_pb2.JobUploaded)
    return list(uploaded.warnings)


def finish_of(upload: Upload) -> upload_pb2.UploadFinish:
    assert upload.finish is not None
    assert upload.finish.bytes_read == upload.open.bytes_planned
    return upload.finish


def test_increment_tells_how_far_tracking_was_checked(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm
) -> None:
    base = full(hub, session, vm)
    vm.disks[0].write(70 * K, cluster_of("Z"))
    assert increment(session, vm, base) == []
    upload = hub.uploads["job-2", 0]
    assert upload.open.read_method == backup_pb2.READ_METHOD_CHANGED
    assert upload.sizes.keys() == {70}
    sampling = upload.open.sampling
    # 64 of the allocated ones and of the others, and some of the start and beside the change.
    assert 2 * 64 <= sampling.clusters_sampled <= 2 * 64 + 16 + 2
    assert sampling.clusters_drawn_from == 200 - 1
    assert 1 < sampling.undetected_clusters_bound < sampling.clusters_drawn_from
    assert sampling.clusters_missed == 0
    assert finish_of(upload).bytes_unchanged == 0


def test_row_11_change_that_tracking_missed_is_found_told_and_backed_up(
    hub: RecordingHub, simulated: SimulatedSite, thorough: HubSession, vm: SimulatedVm
) -> None:
    base = full(hub, thorough, vm)
    disk = vm.disks[0]
    lie = simulated.faults.set("cbt-omit", offset=3 * K, length=190 * K)
    for cluster in (1, 5, 6, 130):
        disk.write(cluster * K + 7, b"changed")
    disk.zero(9 * K, K)
    (warning,) = increment(thorough, vm, base)
    assert lie.fired
    upload = hub.uploads["job-2", 0]
    assert restored(hub, "job-2", BEFORE) == disk.content
    assert upload.open.read_method == backup_pb2.READ_METHOD_COMPARED
    assert "missed" in upload.open.read_reason
    assert not upload.open.full_instead
    # Cluster 1 was told of; the sample had all of the allocated others.
    assert upload.open.sampling.clusters_missed == 4
    assert finish_of(upload).clusters_missed == 4
    assert upload.sizes.keys() == {1, 5, 6, 9, 130}
    assert (warning.code, warning.disk_label) == ("CBT_MISSED_CHANGES", disk.label)
    assert "missed 4 clusters" in warning.message
    for first, end in ((5, 7), (9, 10), (130, 131)):
        assert f"{first * K}-{end * K}" in warning.message


def test_row_11_one_sampled_miss_finds_all_the_others(
    hub: RecordingHub, simulated: SimulatedSite, session: HubSession, vm: SimulatedVm
) -> None:
    base = full(hub, session, vm)
    disk = vm.disks[0]
    simulated.faults.set("cbt-omit")
    written = [*range(64), *range(124, 144)]
    for cluster in written:
        disk.write(cluster * K, b"all of it changed")
    (warning,) = increment(session, vm, base)
    simulated.faults.assert_all_fired()
    upload = hub.uploads["job-2", 0]
    assert 0 < upload.open.sampling.clusters_missed < len(written)
    assert finish_of(upload).clusters_missed == len(written)
    assert f"missed {len(written)} clusters" in warning.message
    assert restored(hub, "job-2", BEFORE) == disk.content


def test_row_11_job_that_fails_tells_of_missed_changes_all_the_same(
    hub: RecordingHub, simulated: SimulatedSite, thorough: HubSession, vm: SimulatedVm
) -> None:
    base = full(hub, thorough, vm)
    simulated.faults.set("cbt-omit")
    vm.disks[0].write(5 * K, b"changed")
    hub.before_seal = lambda upload, context: abort_with(context, LayerDamaged())
    start_job(thorough, vm, "job-2")
    thorough.event("job_opened")
    send_plan(thorough, "job-2", base)
    failed = thorough.event("job_failed")
    assert isinstance(failed, agent_session_pb2.JobFailed)
    assert failed.error.reason == "LAYER_DAMAGED"
    assert [warning.code for warning in failed.warnings] == ["CBT_MISSED_CHANGES"]
    assert vm.snapshots == []


def test_row_10_areas_that_did_not_change_are_read_and_not_sent(
    hub: RecordingHub, simulated: SimulatedSite, session: HubSession, vm: SimulatedVm
) -> None:
    base = full(hub, session, vm)
    simulated.faults.set("cbt-extra", offset=0, length=32 * K)
    vm.disks[0].write(3 * K, cluster_of("Z"))
    assert increment(session, vm, base) == []
    simulated.faults.assert_all_fired()
    upload = hub.uploads["job-2", 0]
    assert upload.open.bytes_planned >= 32 * K
    assert upload.sizes.keys() == {3}
    assert finish_of(upload).bytes_unchanged == upload.open.bytes_planned - K


def test_row_12_trimmed_areas_become_zero_clusters_and_holes_are_not_sent(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm
) -> None:
    base = full(hub, session, vm)
    disk = vm.disks[0]
    disk.trim(2 * K, 3 * K)  # data before
    disk.trim(70 * K, 10 * K)  # a hole before
    assert increment(session, vm, base) == []
    upload = hub.uploads["job-2", 0]
    assert upload.sizes == {2: 0, 3: 0, 4: 0}
    assert restored(hub, "job-2", BEFORE) == disk.content


def test_row_13_cluster_is_zero_only_when_every_byte_is(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm
) -> None:
    base = full(hub, session, vm)
    disk = vm.disks[0]
    disk.zero(10 * K, 2 * K)
    disk.write(11 * K - 1, b"x")
    increment(session, vm, base)
    sizes = hub.uploads["job-2", 0].sizes
    assert sizes[10] > 0
    assert sizes[11] == 0
    assert restored(hub, "job-2", BEFORE) == disk.content


@pytest.mark.parametrize(
    ("why", "fault"),
    [("tracking was reset", None), ("FileFault", "file-fault"), ("empty slice", "cbt-zero-slice")],
)
def test_rows_4_and_10_disk_is_compared_when_tracking_cannot_be_used(
    hub: RecordingHub,
    simulated: SimulatedSite,
    session: HubSession,
    vm: SimulatedVm,
    why: str,
    fault: str | None,
) -> None:
    base = full(hub, session, vm)
    disk = vm.disks[0]
    disk.write(5 * K, b"changed")
    disk.trim(20 * K, 2 * K)
    if fault:
        simulated.faults.set(fault)
    assert increment(session, vm, base if fault else OTHER_UUID) == []
    upload = hub.uploads["job-2", 0]
    assert upload.open.read_method == backup_pb2.READ_METHOD_COMPARED
    assert disk.label in upload.open.read_reason
    assert why in upload.open.read_reason
    assert not upload.open.full_instead
    # What the host calls unallocated, but for what was trimmed and is read.
    assert upload.open.sampling.clusters_drawn_from == 200 - 64 - 20 - 1
    assert upload.sizes.keys() == {5, 20, 21}
    assert restored(hub, "job-2", BEFORE) == disk.content
    simulated.faults.assert_all_fired()


def test_rows_14_and_15_planned_comparison_reads_what_is_allocated_or_in_the_base(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm
) -> None:
    full(hub, session, vm)
    disk = vm.disks[0]
    disk.write(130 * K, b"changed")
    disk.write(180 * K, b"new")
    disk.trim(0, 64 * K)
    assert increment(session, vm, COMPARED) == []
    upload = hub.uploads["job-2", 0]
    assert upload.open.read_method == backup_pb2.READ_METHOD_COMPARED
    assert upload.open.read_reason == ""  # the hub knows why
    sampling = upload.open.sampling
    assert sampling.clusters_drawn_from == 200 - 64 - 20 - 1 - 1
    assert 64 <= sampling.clusters_sampled < sampling.clusters_drawn_from
    assert 1 < sampling.undetected_clusters_bound < sampling.clusters_drawn_from
    assert upload.sizes.keys() == {*range(64), 130, 180}
    assert upload.open.bytes_planned == (64 + 20 + 1) * K + TAIL_BYTES
    assert finish_of(upload).bytes_unchanged == 19 * K + TAIL_BYTES
    assert restored(hub, "job-2", BEFORE) == disk.content


def test_row_8_grown_disk_is_compared_over_its_smaller_base(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm
) -> None:
    full(hub, session, vm)
    disk = vm.disks[0]
    disk.grow(len(BEFORE) + 512 + 100 * K)
    disk.write(len(BEFORE) - 10, b"over the old end" * 100)
    hub.bases["job-2", 0] = grown = BEFORE.ljust(disk.capacity_bytes, b"\0")
    increment(session, vm, COMPARED)
    upload = hub.uploads["job-2", 0]
    assert upload.sizes.keys() == {len(BEFORE) // K, len(BEFORE) // K + 1}
    assert restored(hub, "job-2", grown) == disk.content


@pytest.mark.parametrize("planned", ["changed", "compared"])
@pytest.mark.parametrize("problem", ["no base", "damaged"])
def test_base_that_cannot_be_told_of_makes_a_full(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm, planned: str, problem: str
) -> None:
    base = full(hub, session, vm)
    vm.disks[0].write(5 * K, b"changed")
    if problem == "no base":
        hub.bases.clear()
    else:
        hub.before_digests = lambda request, context: abort_with(context, LayerDamaged())
    assert increment(session, vm, base if planned == "changed" else COMPARED) == []
    upload = hub.uploads["job-2", 0]
    assert upload.open.full_instead
    assert problem.split()[-1] in upload.open.full_reason
    assert upload.open.read_method == backup_pb2.READ_METHOD_ALLOCATED
    assert 0 not in upload.sizes.values()
    assert restored(hub, "job-2", bytes(len(BEFORE))) == vm.disks[0].content


def test_base_found_damaged_after_a_miss_makes_a_full_that_still_tells_of_the_miss(
    hub: RecordingHub, simulated: SimulatedSite, thorough: HubSession, vm: SimulatedVm
) -> None:
    base = full(hub, thorough, vm)
    simulated.faults.set("cbt-omit")
    vm.disks[0].write(5 * K, b"changed")

    def damaged_when_compared(
        request: upload_pb2.BaseDigestsRequest, context: grpc.ServicerContext
    ) -> None:
        if len(hub.digests_asked) > 1:  # tracking told of nothing: the first is about the sample
            abort_with(context, LayerDamaged())

    hub.before_digests = damaged_when_compared
    (warning,) = increment(thorough, vm, base)
    assert warning.code == "CBT_MISSED_CHANGES"
    upload = hub.uploads["job-2", 0]
    assert upload.open.full_instead
    assert upload.open.sampling.clusters_missed == finish_of(upload).clusters_missed == 1
    assert restored(hub, "job-2", bytes(len(BEFORE))) == vm.disks[0].content


@pytest.mark.parametrize("method", ["allocated", "compared", "changed"])
def test_wrong_allocation_is_noticed_and_told_and_not_used(
    hub: RecordingHub, simulated: SimulatedSite, session: HubSession, vm: SimulatedVm, method: str
) -> None:
    base = full(hub, session, vm)
    disk = vm.disks[0]
    for cluster in range(70, 120):  # holes in the base
        disk.write(cluster * K, b"new")
    simulated.faults.set("allocation-wrong")
    plan = {"allocated": None, "compared": COMPARED, "changed": base}[method]
    (warning,) = increment(session, vm, plan)
    assert (warning.code, warning.disk_label) == ("ALLOCATION_WRONG", disk.label)
    simulated.faults.assert_all_fired()
    upload = hub.uploads["job-2", 0]
    before = bytes(len(BEFORE)) if method == "allocated" else BEFORE
    assert restored(hub, "job-2", before) == disk.content
    assert upload.open.bytes_planned == finish_of(upload).bytes_read == len(BEFORE)
    # Nothing is left out any more.
    sampling = upload.open.sampling
    assert (sampling.clusters_drawn_from, sampling.undetected_clusters_bound) == (0, 1)
    assert sampling.clusters_sampled > 0
    assert sampling.clusters_missed == 0
    if method == "changed":
        assert upload.open.read_method == backup_pb2.READ_METHOD_COMPARED
        assert upload.open.read_reason == "the host called clusters unallocated that hold data"


def test_row_11_trim_that_tracking_missed_is_found_among_what_is_unallocated_now(
    hub: RecordingHub, simulated: SimulatedSite, thorough: HubSession, vm: SimulatedVm
) -> None:
    base = full(hub, thorough, vm)
    disk = vm.disks[0]
    disk.trim(20 * K, 4 * K)
    disk.write(130 * K, b"changed")
    lie = simulated.faults.set("cbt-omit", offset=20 * K, length=4 * K)
    (warning,) = increment(thorough, vm, base)
    assert lie.fired
    assert warning.code == "CBT_MISSED_CHANGES"
    upload = hub.uploads["job-2", 0]
    assert upload.open.read_method == backup_pb2.READ_METHOD_COMPARED
    assert upload.open.sampling.clusters_missed == 4
    assert upload.sizes == {20: 0, 21: 0, 22: 0, 23: 0, 130: upload.sizes[130]}
    assert restored(hub, "job-2", BEFORE) == disk.content


@pytest.mark.parametrize("used", ["changed", "compared", "allocated"])
def test_area_that_tracking_tells_of_and_the_host_denies_is_read_however_the_disk_is(
    hub: RecordingHub, simulated: SimulatedSite, thorough: HubSession, vm: SimulatedVm, used: str
) -> None:
    """No sample can find it: it is drawn from what tracking did not tell of."""
    base = full(hub, thorough, vm)
    disk = vm.disks[0]
    disk.write(90 * K, cluster_of("Z"))  # zeros in the base
    denial = simulated.faults.set("allocation-wrong", offset=90 * K, length=K)
    if used == "compared":
        simulated.faults.set("cbt-omit", offset=5 * K, length=K)
        disk.write(5 * K, b"missed")
    elif used == "allocated":
        hub.bases.clear()
    warnings = increment(thorough, vm, base)
    assert denial.fired
    assert [w.code for w in warnings] == ["CBT_MISSED_CHANGES"] * (used == "compared")
    upload = hub.uploads["job-2", 0]
    method = backup_pb2.ReadMethod.Name(upload.open.read_method)
    assert method == f"READ_METHOD_{used.upper()}"
    assert upload.open.full_instead == (used == "allocated")
    before = bytes(len(BEFORE)) if used == "allocated" else BEFORE
    assert restored(hub, "job-2", before) == disk.content


def test_data_that_the_base_lacks_is_stored_once_a_sample_has_seen_it(
    hub: RecordingHub, simulated: SimulatedSite, thorough: HubSession, vm: SimulatedVm
) -> None:
    """As after a full that the allocation misled; tracking has nothing to tell of it."""
    disk = vm.disks[0]
    disk.write(90 * K, cluster_of("Z"))
    base = back_up(thorough, vm, "job-1", None).disks[0].change_id
    hub.bases["job-2", 0] = BEFORE
    simulated.faults.set("allocation-wrong", offset=90 * K, length=K)
    warnings = increment(thorough, vm, base)
    simulated.faults.assert_all_fired()
    assert {w.code for w in warnings} == {"ALLOCATION_WRONG", "CBT_MISSED_CHANGES"}
    upload = hub.uploads["job-2", 0]
    assert upload.open.read_method == backup_pb2.READ_METHOD_COMPARED
    assert "unallocated" in upload.open.read_reason
    assert upload.sizes.keys() == {90}
    assert restored(hub, "job-2", BEFORE) == disk.content


def test_unknown_allocation_means_the_whole_disk(
    hub: RecordingHub, simulated: SimulatedSite, session: HubSession, vm: SimulatedVm
) -> None:
    full(hub, session, vm)
    simulated.faults.set("nfc-error-reply", on="allocated")
    vm.disks[0].write(100 * K, b"new")
    assert increment(session, vm, COMPARED) == []
    upload = hub.uploads["job-2", 0]
    assert upload.open.bytes_planned == len(BEFORE)
    assert upload.sizes.keys() == {100}


def test_cancellation_ends_a_job_that_waits_for_the_base(
    hub: RecordingHub, session: HubSession, vm: SimulatedVm
) -> None:
    base = full(hub, session, vm)
    reached = threading.Event()

    def hold(request: object, context: grpc.ServicerContext) -> None:
        ended = threading.Event()
        reached.set()
        if context.add_callback(ended.set):
            assert ended.wait(DEADLINE_S)

    hub.before_digests = hold
    start_job(session, vm, "job-2")
    session.event("job_opened")
    send_plan(session, "job-2", base)
    assert reached.wait(DEADLINE_S)
    session.command(cancel_job=agent_session_pb2.CancelJob(job_id="job-2", reason="enough"))
    failed = session.event("job_failed")
    assert isinstance(failed, agent_session_pb2.JobFailed)
    assert failed.cancelled
    assert ("job-2", 0) not in hub.uploads
    assert vm.snapshots == []


@pytest.mark.parametrize(
    ("method", "change_id"),
    [(backup_pb2.READ_METHOD_UNSPECIFIED, "x/1"), (backup_pb2.READ_METHOD_CHANGED, "")],
)
def test_plan_that_is_none_fails_the_job(
    session: HubSession, vm: SimulatedVm, method: backup_pb2.ReadMethod, change_id: str
) -> None:
    start_job(session, vm, "job-1")
    session.event("job_opened")
    disk = agent_session_pb2.DiskPlan(base_change_id=change_id, read_method=method)
    session.command(job_plan=agent_session_pb2.JobPlan(job_id="job-1", disks=[disk]))
    failed = session.event("job_failed")
    assert isinstance(failed, agent_session_pb2.JobFailed)
    assert failed.error.reason == "PROTOCOL_VIOLATION"
    assert vm.snapshots == []
