"""Uploads that go wrong: a clear status, a failed job, nothing left in the repository."""

import resource
from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc
import numpy as np
import pytest

from sendense.codec import EncodedClusters
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import upload_pb2
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, Uploading, batches, raw_bytes
from tests.unit.hub.running_hub import RunningHub, refusal

DISKS = [FakeDisk("ABCD"), FakeDisk("EF", key=2001, uuid="u2", label="Hard disk 2")]


@pytest.fixture
def job(hub: RunningHub, agent: FakeAgent) -> str:
    """A running job of two disks, of 4 and 2 clusters."""
    job_id = hub.start().job_id
    agent.expect("start_job")
    agent.open_job(job_id, DISKS)
    agent.expect("job_plan")
    return job_id


@pytest.fixture
def up(agent: FakeAgent, job: str) -> Iterator[Uploading]:
    """An opened upload of disk 0."""
    with Uploading(agent.channel) as up:
        up.open(job, 0, bytes_planned=4 * 65536)
        up.until("opened")
        yield up


def beyond_capacity(up: Uploading) -> None:
    up.frame(replace(batches("A")[0], numbers=np.array([4], np.uint32)))


def out_of_order(up: Uploading) -> None:
    first, second = batches("AB")
    up.frame(second)
    up.frame(first)


def sent_twice(up: Uploading) -> None:
    (first,) = batches("A")
    up.frame(first)
    up.frame(first)


def bad_arrays(up: Uploading) -> None:
    one = batches("A")[0]
    up.frame(EncodedClusters(one.numbers, one.sizes, one.digests + b"x", one.compressed, one.raw))


def wrong_totals(up: Uploading) -> None:
    up.frame(batches("A")[0])
    up.finish(frame_count=2)


def wrong_payload(up: Uploading) -> None:
    up.frame(batches("A")[0])
    up.finish(payload_bytes=1)


def read_too_little(up: Uploading) -> None:
    up.frame(batches("A")[0])
    up.finish(bytes_read=65536)


def opened_twice(up: Uploading) -> None:
    up.open("x", 0)


def read_beyond_capacity(up: Uploading) -> None:
    up.put(progress=upload_pb2.UploadProgress(bytes_read=2**63))


def finished_beyond_capacity(up: Uploading) -> None:
    for batch in batches("ABCD"):
        up.frame(batch)
    up.finish(bytes_read=2**63)


@pytest.mark.parametrize(
    ("wrong", "status", "reason"),
    [
        (beyond_capacity, grpc.StatusCode.INVALID_ARGUMENT, "FRAME_INVALID"),
        (out_of_order, grpc.StatusCode.INVALID_ARGUMENT, "FRAME_INVALID"),
        (sent_twice, grpc.StatusCode.INVALID_ARGUMENT, "FRAME_INVALID"),
        (bad_arrays, grpc.StatusCode.INVALID_ARGUMENT, "FRAME_INVALID"),
        (wrong_totals, grpc.StatusCode.DATA_LOSS, "UPLOAD_TRUNCATED"),
        (wrong_payload, grpc.StatusCode.DATA_LOSS, "UPLOAD_TRUNCATED"),
        (read_too_little, grpc.StatusCode.DATA_LOSS, "UPLOAD_TRUNCATED"),
        (read_beyond_capacity, grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VIOLATION"),
        (finished_beyond_capacity, grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VIOLATION"),
        (opened_twice, grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VIOLATION"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_wrong_upload_fails_its_job_and_leaves_nothing(
    hub: RunningHub,
    agent: FakeAgent,
    job: str,
    up: Uploading,
    wrong: Callable[[Uploading], None],
    status: grpc.StatusCode,
    reason: str,
) -> None:
    agent.upload(job, 1, "EF")  # sealed already, goes with its job
    wrong(up)
    assert refusal(up.sealed)[:2] == (status, reason)
    failed = hub.wait(job)
    assert failed.status == pb.BACKUP_STATUS_FAILED
    assert failed.error.reason == reason
    assert [disk.status for disk in failed.disks] == [pb.BACKUP_STATUS_FAILED] * 2
    assert failed.disks[0].error.reason == reason
    # The agent removes its snapshot; its answer changes nothing any more.
    assert agent.expect("cancel_job").job_id == job
    agent.send(job_failed=session_pb.JobFailed(job_id=job, cancelled=True))
    agent.report()
    assert hub.get(job).error.reason == reason
    hub.wait_for_files(set())
    assert hub.parts.uploads.count() == 0


def test_hub_goes_on_after_a_wrong_upload(hub: RunningHub, agent: FakeAgent, up: Uploading) -> None:
    sent_twice(up)
    refusal(up.sealed)
    agent.expect("cancel_job")
    job = hub.start()
    agent.expect("start_job")
    agent.run_job(job.job_id, DISKS)
    assert hub.wait(job.job_id).status == pb.BACKUP_STATUS_COMPLETED
    assert hub.restored(job.job_id, 1) == raw_bytes("EF")


def test_full_repository_fails_the_job_and_gives_the_space_back(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(job.job_id, [FakeDisk("R" * 40)])
    agent.expect("job_plan")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The nearest thing to a full disk without a file system of its own.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, limits[1]))
    try:
        answer = refusal(lambda: agent.upload(job.job_id, 0, "R" * 40))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert answer[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REPOSITORY_FULL")
    assert hub.wait(job.job_id).error.reason == "REPOSITORY_FULL"
    hub.wait_for_files(set())


def test_upload_of_a_sealed_disk_is_answered_with_the_same_seal(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    first = agent.upload(job, 0, "ABCD")
    files = {name: (hub.repository_folder() / name).stat().st_mtime_ns for name in hub.files()}
    with Uploading(agent.channel) as again:
        again.open(job, 0)
        assert again.sealed() == first
    assert files == {
        name: (hub.repository_folder() / name).stat().st_mtime_ns for name in hub.files()
    }


def test_sealed_disk_is_answered_when_its_job_is_completed(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    seals = [agent.upload(job, 0, "ABCD"), agent.upload(job, 1, "EF")]
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job))
    hub.wait(job)
    with Uploading(agent.channel) as again:
        again.open(job, 1)
        assert again.sealed() == seals[1]


@pytest.mark.parametrize(
    ("job_id", "disk_index", "status", "reason"),
    [
        ("backup-nobody-1", 0, grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"),
        (None, 2, grpc.StatusCode.NOT_FOUND, "DISK_NOT_FOUND"),
        (None, -1, grpc.StatusCode.NOT_FOUND, "DISK_NOT_FOUND"),
    ],
    ids=["job", "disk", "negative"],
)
def test_upload_of_nothing_is_refused_and_harms_no_job(
    hub: RunningHub,
    agent: FakeAgent,
    job: str,
    job_id: str | None,
    disk_index: int,
    status: grpc.StatusCode,
    reason: str,
) -> None:
    assert refusal(lambda: agent.upload(job_id or job, disk_index, "A"))[:2] == (status, reason)
    assert hub.get(job).status == pb.BACKUP_STATUS_RUNNING


def test_upload_that_does_not_begin_with_open_is_refused(hub: RunningHub, agent: FakeAgent) -> None:
    with Uploading(agent.channel) as up:
        up.frame(batches("A")[0])
        assert refusal(up.sealed)[:2] == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "PROTOCOL_VIOLATION",
        )


def test_upload_of_an_ended_job_is_aborted(hub: RunningHub, agent: FakeAgent, job: str) -> None:
    agent.send(
        job_failed=session_pb.JobFailed(
            job_id=job, error=pb.BackupError(reason="VSPHERE_UNREACHABLE", message="gone")
        )
    )
    assert hub.wait(job).error.reason == "VSPHERE_UNREACHABLE"
    status, reason, facts = refusal(lambda: agent.upload(job, 0, "ABCD"))
    assert (status, reason) == (grpc.StatusCode.ABORTED, "JOB_ENDED")
    assert facts["job_status"] == "failed"


def test_moving_upload_is_aborted_when_its_job_ends(
    hub: RunningHub, agent: FakeAgent, job: str, up: Uploading
) -> None:
    up.frame(batches("A")[0])
    up.until("ack")
    assert hub.files() != set()
    agent.send(
        job_failed=session_pb.JobFailed(
            job_id=job, error=pb.BackupError(reason="DISK_READ_FAILED", message="other disk")
        )
    )
    assert refusal(up.sealed)[:2] == (grpc.StatusCode.ABORTED, "JOB_ENDED")
    failed = hub.wait(job)
    assert failed.error.reason == "DISK_READ_FAILED"
    assert failed.bytes_transferred == batches("A")[0].payload_bytes
    hub.wait_for_files(set())


def test_acknowledged_frames_are_counted_from_the_open(
    hub: RunningHub, agent: FakeAgent, job: str, up: Uploading
) -> None:
    sent = batches("ABC")
    for batch in sent:
        up.frame(batch)
    acks: list[upload_pb2.UploadAck] = []
    while not acks or acks[-1].durable_frames < 3:
        acks.append(up.until("ack").ack)
    assert acks == sorted(acks, key=lambda ack: ack.durable_frames)
    assert acks[-1].durable_through_cluster == 2
    assert any(name.endswith("disk-0.qcow2.partial") for name in hub.files())


def test_disk_of_zeros_alone_is_sealed(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk("....")])
    done = hub.wait(job.job_id)
    assert done.status == pb.BACKUP_STATUS_COMPLETED
    assert hub.restored(done.job_id) == bytes(4 * 65536)


def test_empty_part_is_refused(hub: RunningHub, up: Uploading) -> None:
    up._out.put(upload_pb2.UploadDiskRequest())
    assert refusal(up.sealed)[1] == "PROTOCOL_VIOLATION"


@pytest.mark.parametrize("planned", [4 * 65536 + 1, 2**63, 2**64 - 1])
def test_upload_that_plans_more_than_the_disk_fails_its_job(
    hub: RunningHub, agent: FakeAgent, job: str, planned: int
) -> None:
    with Uploading(agent.channel) as up:
        up.open(job, 0, bytes_planned=planned)
        assert refusal(up.sealed)[1] == "PROTOCOL_VIOLATION"
    failed = hub.wait(job)
    assert failed.error.reason == "PROTOCOL_VIOLATION"
    assert failed.bytes_planned == 0


def test_progress_that_cannot_be_stored_does_not_keep_a_job_from_ending(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    hub.parts.board.disk(job, 0).bytes_read = 2**63
    agent.send(
        job_failed=session_pb.JobFailed(
            job_id=job, error=pb.BackupError(reason="DISK_READ_FAILED", message="bad sector")
        )
    )
    assert hub.wait(job).error.reason == "DISK_READ_FAILED"
