"""Uploads that break off and go on: what is durable is not sent again, and counted once."""

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from hub.catalog.models import BackupDisk
from hub.catalog.queries import find_disk
from hub.config import HubSettings
from hub.errors import CatalogUnavailable
from hub.jobs.receive_disk import upload as uploads
from hub.jobs.states import Status
from hub.repository.file_calls import FileCalls, replaced
from hub.repository.journal import JournalReader
from sendense.clusters import CLUSTER_BYTES
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm, Uploading, batches, raw_bytes
from tests.unit.hub.jobs.backups import backed_up
from tests.unit.hub.running_hub import RunningHub, refusal, running

CONTENT = "ABCDRE"
PLAN = b"p" * 16
OTHER_PLAN = b"q" * 16
PAYLOADS = [batch.payload_bytes for batch in batches(CONTENT)]


@pytest.fixture
def job(hub: RunningHub, agent: FakeAgent) -> str:
    """A running job of a disk of six clusters."""
    return opened_job(hub, agent)


def opened_job(hub: RunningHub, agent: FakeAgent) -> str:
    job_id = hub.start().job_id
    agent.expect("start_job")
    agent.open_job(job_id, [FakeDisk(CONTENT)])
    agent.expect("job_plan")
    return job_id


def opening(job_id: str, **more: Any) -> dict[str, Any]:
    facts = {"bytes_planned": len(CONTENT) * CLUSTER_BYTES, "plan_digest": PLAN}
    return {"job_id": job_id, "disk_index": 0} | facts | more


def sent(up: Uploading, job_id: str, frames: int, **more: Any) -> None:
    """Open the upload and have so many frames of the disk durable."""
    up.open(**opening(job_id, **more))
    assert up.opened().durable_frames == 0
    for batch in batches(CONTENT)[:frames]:
        up.frame(batch)
    up.acknowledged(frames)


def broken_off(hub: RunningHub, channel: grpc.Channel, job_id: str, frames: int) -> None:
    """An upload whose connection breaks when so many frames are durable."""
    with Uploading(channel) as up:
        sent(up, job_id, frames)
        up.call.cancel()
        hub.wait_until_no_upload()


def finished(up: Uploading, content: str = CONTENT) -> None:
    """Send what is not durable, to the end."""
    for batch in batches(content)[up.frames :]:
        up.frame(batch)
    up.finish()
    up.sealed()


def row(hub: RunningHub, job_id: str) -> BackupDisk:
    with hub.parts.catalog.read() as session:
        return find_disk(session, job_id, 0)


def completed(hub: RunningHub, agent: FakeAgent, job_id: str) -> None:
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job_id))
    done = hub.wait(job_id)
    assert done.status == pb.BACKUP_STATUS_COMPLETED, done.error


def journal_frames(hub: RunningHub, job_id: str) -> list[int]:
    """The first clusters of the frames that the layer's journal has."""
    (manifest,) = (name for name in hub.files() if job_id in name and name.endswith(".manifest"))
    with JournalReader(hub.repository_folder() / manifest) as journal:
        return [placed.frame.first_cluster for placed in journal.frames()]


@pytest.mark.parametrize("frames", [1, 3, 6])
def test_broken_upload_goes_on_behind_what_is_durable(
    hub: RunningHub, agent: FakeAgent, job: str, frames: int
) -> None:
    broken_off(hub, agent.channel, job, frames)
    assert row(hub, job).status is Status.RUNNING
    with Uploading(agent.channel) as up:
        up.open(**opening(job, payload_bytes_sent=sum(PAYLOADS[:frames]) + 100))
        opened = up.opened()
        assert (opened.durable_frames, opened.durable_clusters) == (frames, frames)
        assert opened.durable_through_cluster == frames - 1
        assert opened.durable_payload_bytes == sum(PAYLOADS[:frames])
        finished(up)
    assert journal_frames(hub, job) == list(range(len(CONTENT)))
    completed(hub, agent, job)
    disk = row(hub, job)
    assert (disk.resume_count, disk.bytes_resent) == (1, 100)
    assert disk.bytes_transferred == sum(PAYLOADS)
    assert disk.bytes_read == disk.bytes_planned
    assert hub.restored(job) == raw_bytes(CONTENT)
    counted = hub.parts.metrics.registry.get_sample_value
    assert counted("sendense_hub_uploads_resumed_total") == 1
    assert counted("sendense_hub_upload_payload_resent_bytes_total") == 100


def test_each_break_is_counted_and_what_was_sent_again_only_once(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    broken_off(hub, agent.channel, job, 2)
    durable = sum(PAYLOADS[:2])
    for _ in range(2):
        with Uploading(agent.channel) as up:
            up.open(**opening(job, payload_bytes_sent=durable + 7))
            assert up.opened().durable_frames == 2
            up.call.cancel()
            hub.wait_until_no_upload()
    disk = row(hub, job)
    assert (disk.resume_count, disk.bytes_resent) == (2, 7)


def test_upload_goes_on_at_a_hub_that_was_started_anew(settings: HubSettings) -> None:
    with running(settings) as hub, FakeAgent(hub.address, vms=[FakeVm()]) as agent:
        job_id = opened_job(hub, agent.connect())
        with Uploading(agent.channel) as up:
            sent(up, job_id, 3)
            # Aborted as the hub's stop does, with the job as the stop leaves it.
            hub.hub.stop()
            with pytest.raises(grpc.RpcError):
                up.sealed()
    with running(settings) as hub, grpc.insecure_channel(hub.address) as channel:
        assert row(hub, job_id).status is Status.RUNNING
        with Uploading(channel) as up:
            up.open(**opening(job_id))
            assert up.opened().durable_frames == 3
            finished(up)
        disk = row(hub, job_id)
        assert disk.sealed_at is not None
        assert (disk.resume_count, disk.bytes_resent) == (1, 0)
        assert journal_frames(hub, job_id) == list(range(len(CONTENT)))


def test_newer_upload_takes_over_from_one_that_is_still_open(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    with Uploading(agent.channel) as old, Uploading(agent.channel) as new:
        sent(old, job, 2)
        for batch in batches(CONTENT)[2:4]:
            old.frame(batch)  # in flight: they may arrive before the new one does, or never
        new.open(**opening(job))
        opened = new.opened()
        assert 2 <= opened.durable_frames <= 4
        status, reason, facts = refusal(old.sealed)
        assert (status, reason) == (grpc.StatusCode.ABORTED, "UPLOAD_SUPERSEDED")
        assert facts["disk_index"] == "0"
        finished(new)
    assert journal_frames(hub, job) == list(range(len(CONTENT)))
    completed(hub, agent, job)
    assert hub.restored(job) == raw_bytes(CONTENT)


@pytest.mark.parametrize("digest", [OTHER_PLAN, b""], ids=["other", "none"])
def test_upload_by_another_plan_begins_anew(
    hub: RunningHub, agent: FakeAgent, job: str, digest: bytes
) -> None:
    broken_off(hub, agent.channel, job, 3)
    with Uploading(agent.channel) as up:
        up.open(**opening(job, plan_digest=digest))
        assert up.opened().durable_frames == 0
        for batch in batches("..X.Y."):
            up.frame(batch)
        up.finish()
        up.sealed()
    assert journal_frames(hub, job) == [2, 4]
    completed(hub, agent, job)
    assert hub.restored(job) == raw_bytes("..X.Y.")
    disk = row(hub, job)
    assert (disk.resume_count, disk.bytes_resent) == (1, sum(PAYLOADS[:3]))


def test_layer_that_is_sealed_but_not_recorded_is_answered_as_sealed(
    hub: RunningHub, agent: FakeAgent, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fired = []

    def lost(*_: object) -> None:
        fired.append(True)
        raise CatalogUnavailable("it is locked")

    with monkeypatch.context() as patch, Uploading(agent.channel) as up:
        patch.setattr(uploads, "record_seal", lost)
        sent(up, job, len(CONTENT))
        up.finish()
        assert refusal(up.sealed)[1] == "CATALOG_UNAVAILABLE"
    assert fired
    assert row(hub, job).sealed_at is None
    assert any(name.endswith("disk-0.qcow2") for name in hub.files())
    files = hub.files()
    with Uploading(agent.channel) as up:
        up.open(**opening(job))
        assert up.sealed().bytes_stored > 0
    assert hub.files() == files
    disk = row(hub, job)
    assert disk.sealed_at is not None
    assert (disk.bytes_read, disk.bytes_transferred) == (disk.bytes_planned, sum(PAYLOADS))
    completed(hub, agent, job)
    assert hub.restored(job) == raw_bytes(CONTENT)


def test_totals_that_are_wrong_after_a_resume_fail_the_job(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    broken_off(hub, agent.channel, job, 3)
    with Uploading(agent.channel) as up:
        up.open(**opening(job))
        durable = up.opened().durable_frames
        for batch in batches(CONTENT)[durable:]:
            up.frame(batch)
        up.finish(frame_count=len(CONTENT) - durable)
        assert refusal(up.sealed)[1] == "UPLOAD_TRUNCATED"
    assert hub.wait(job).error.reason == "UPLOAD_TRUNCATED"
    hub.wait_for_files(set())
    with Uploading(agent.channel) as up:
        up.open(**opening(job))
        assert refusal(up.sealed)[1] == "JOB_ENDED"


def corrupt(up: Uploading) -> None:
    frame = batches("...X")[0].to_frame()
    frame.compressed = frame.compressed[:-1] + b"?"
    up.put(frame=frame)


def half_closed(up: Uploading) -> None:
    up.half_close()


@pytest.mark.parametrize(
    ("harm", "reason"), [(corrupt, "FRAME_CORRUPT"), (half_closed, "UPLOAD_TRUNCATED")]
)
def test_upload_that_is_harmed_on_its_way_goes_on(
    hub: RunningHub, agent: FakeAgent, job: str, harm: Callable[[Uploading], None], reason: str
) -> None:
    with Uploading(agent.channel) as up:
        sent(up, job, 3)
        harm(up)
        status, told, _ = refusal(up.sealed)
        assert (status, told) == (grpc.StatusCode.DATA_LOSS, reason)
    assert hub.get(job).status == pb.BACKUP_STATUS_RUNNING
    with Uploading(agent.channel) as up:
        up.open(**opening(job))
        assert up.opened().durable_frames == 3
        finished(up)
    completed(hub, agent, job)
    assert hub.restored(job) == raw_bytes(CONTENT)


def test_upload_that_waited_too_long_goes_on(hub: RunningHub, agent: FakeAgent, job: str) -> None:
    with Uploading(agent.channel) as up:
        sent(up, job, 1)
        hub.parts.uploads.expire(-1)
        assert refusal(up.sealed)[1] == "UPLOAD_STALLED"
    with Uploading(agent.channel) as up:
        up.open(**opening(job))
        assert up.opened().durable_frames == 1
        finished(up)


def test_frames_that_are_not_acknowledged_are_made_durable_by_the_break(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    """Also while the other thread syncs them."""
    with Uploading(agent.channel) as up:
        up.open(**opening(job))
        up.opened()
        for batch in batches(CONTENT)[:5]:
            up.frame(batch)
        corrupt(up)
        assert refusal(up.sealed)[1] == "FRAME_CORRUPT"
    with Uploading(agent.channel) as up:
        up.open(**opening(job))
        assert up.opened().durable_frames == 5
        finished(up)
    assert journal_frames(hub, job) == list(range(len(CONTENT)))


class HeldSync(FileCalls):
    """The first sync goes on for as long as the test wants."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()

    def fdatasync(self, fd: int) -> None:
        self.began.set()
        assert self.may_end.wait(20)
        super().fdatasync(fd)


def test_upload_that_breaks_during_a_sync_keeps_what_came_before_and_after_it(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    calls = HeldSync()
    with Uploading(agent.channel) as up:
        up.open(**opening(job))
        up.opened()
        with replaced(calls):
            up.frame(batches(CONTENT)[0])
            assert calls.began.wait(20)
            for batch in batches(CONTENT)[1:3]:
                up.frame(batch)
            corrupt(up)
            calls.may_end.set()
            assert refusal(up.sealed)[1] == "FRAME_CORRUPT"
    with Uploading(agent.channel) as up:
        up.open(**opening(job))
        assert up.opened().durable_frames == 3
        finished(up)
    assert journal_frames(hub, job) == list(range(len(CONTENT)))


@pytest.mark.parametrize("cancelled", [True, False])
def test_upload_of_a_job_that_ended_meanwhile_is_refused(
    hub: RunningHub, agent: FakeAgent, job: str, cancelled: bool
) -> None:
    broken_off(hub, agent.channel, job, 2)
    if cancelled:
        hub.cancel(job)
    error = pb.BackupError(reason="DISK_READ_FAILED", message="bad sector")
    agent.send(job_failed=session_pb.JobFailed(job_id=job, error=error, cancelled=cancelled))
    ended = hub.wait(job)
    assert (ended.status == pb.BACKUP_STATUS_CANCELLED) == cancelled
    with Uploading(agent.channel) as up:
        up.open(**opening(job))
        assert refusal(up.sealed)[:2] == (grpc.StatusCode.ABORTED, "JOB_ENDED")
    hub.wait_for_files(set())


def test_increment_goes_on_over_its_base(hub: RunningHub, agent: FakeAgent) -> None:
    backed_up(hub, agent, CONTENT, 1)
    job_id = hub.start().job_id
    agent.expect("start_job")
    agent.open_job(job_id, [FakeDisk(CONTENT, change_id="52 aa/2")])
    assert agent.expect("job_plan").disks[0].backup_type == pb.BACKUP_TYPE_INCREMENTAL
    changed = "X.Y0.Z"
    with Uploading(agent.channel) as up:
        up.open(**opening(job_id))
        up.opened()
        for batch in batches(changed)[:2]:
            up.frame(batch)
        up.acknowledged(2)
        up.call.cancel()
        hub.wait_until_no_upload()
    with Uploading(agent.channel) as up:
        up.open(**opening(job_id))
        assert up.opened().durable_through_cluster == 2
        finished(up, changed)
    completed(hub, agent, job_id)
    assert hub.restored(job_id) == raw_bytes("XBY0RZ")


def test_every_part_of_an_upload_renews_the_lease_of_its_job(
    hub: RunningHub, agent: FakeAgent, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[str] = []
    monkeypatch.setattr(hub.parts.leases, "renew", renewed.extend)
    with Uploading(agent.channel) as up:
        sent(up, job, 5)
    assert renewed
    assert set(renewed) == {job}
    assert len(renewed) < 6  # at most once a second
