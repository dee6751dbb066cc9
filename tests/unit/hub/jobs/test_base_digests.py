"""BaseDigests: an agent is told what the base of a disk holds, or why it cannot be told."""

import queue
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import grpc
import pytest

from hub.errors import HubStopping
from hub.jobs import active_uploads, base_digests
from sendense.clusters import CLUSTER_BYTES, REGION_CLUSTERS, ZERO_DIGEST, cluster_digest
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import upload_pb2
from sendense.v1.upload_pb2_grpc import UploadServiceStub
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, Uploading, cluster
from tests.unit.hub.running_hub import RunningHub, refusal

pytestmark = pytest.mark.hostile

DISK = "AB.C"
ANSWER_S = 20.0
QUIET_S = 1.0


class Asking:
    """One BaseDigests RPC, driven request by request."""

    def __init__(self, channel: grpc.Channel, job_id: str = "", disk_index: int = 0) -> None:
        self._out: queue.Queue[upload_pb2.BaseDigestsRequest | None] = queue.Queue()
        self._names = {"job_id": job_id, "disk_index": disk_index}
        self.call = UploadServiceStub(channel).BaseDigests(
            iter(self._out.get, None), timeout=ANSWER_S
        )

    def put(self, region: int = 0, numbers: list[int] | bytes = b"", **more: Any) -> None:
        if isinstance(numbers, list):
            numbers = struct.pack(f"<{len(numbers)}I", *numbers)
        names, self._names = self._names, {}
        self._out.put(
            upload_pb2.BaseDigestsRequest(region=region, cluster_numbers=numbers, **names | more)
        )

    def ask(self, region: int = 0, numbers: list[int] | bytes = b"", **more: Any) -> Any:
        """The answer. Raises grpc.RpcError."""
        self.put(region, numbers, **more)
        return next(self.call)

    def half_close(self) -> None:
        self._out.put(None)

    def __enter__(self) -> "Asking":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.half_close()
        self.call.cancel()


def digests_of(text: str) -> bytes:
    return b"".join(cluster_digest(cluster(letter)) for letter in text)


def backed_up(hub: RunningHub, agent: FakeAgent, *disks: FakeDisk) -> str:
    """A completed full."""
    job_id = hub.start().job_id
    agent.expect("start_job")
    agent.run_job(job_id, list(disks))
    assert hub.wait(job_id).status == pb.BACKUP_STATUS_COMPLETED
    return job_id


def opened(hub: RunningHub, agent: FakeAgent, *disks: FakeDisk) -> str:
    """A job whose plan is sent and of which nothing is uploaded yet."""
    job_id = hub.start().job_id
    agent.expect("start_job")
    agent.open_job(job_id, disks)
    agent.expect("job_plan")
    return job_id


@pytest.fixture
def job(hub: RunningHub, agent: FakeAgent) -> str:
    """A running increment of the disk `DISK`."""
    backed_up(hub, agent, FakeDisk(DISK))
    return opened(hub, agent, FakeDisk(DISK, change_id="52 aa/2"))


@pytest.fixture
def asking(agent: FakeAgent, job: str) -> Iterator[Asking]:
    with Asking(agent.channel, job) as asking:
        yield asking


def wait_until(reached: Callable[[], bool], what: str) -> None:
    deadline, pause = time.monotonic() + ANSWER_S, threading.Event()
    while not reached():
        assert time.monotonic() < deadline, what
        pause.wait(0.01)


def wait_until_nobody_reads(hub: RunningHub) -> None:
    wait_until(lambda: hub.parts.uploads.reader_count() == 0, "a base is still read")


def fail(agent: FakeAgent, job: str) -> None:
    error = pb.BackupError(reason="DISK_READ_FAILED", message="bad sector")
    agent.send(job_failed=session_pb.JobFailed(job_id=job, error=error))


def test_digests_are_those_of_the_clusters_that_the_guest_had(
    hub: RunningHub, asking: Asking
) -> None:
    whole = asking.ask()
    assert (whole.region, whole.digests, whole.all_zero) == (0, digests_of(DISK), False)
    assert asking.ask(0, [1, 2]).digests == digests_of("B.")
    assert asking.ask(0, [3]).digests == digests_of("C")
    asking.half_close()
    assert next(asking.call, None) is None
    wait_until_nobody_reads(hub)


def test_clusters_of_zeros_alone_are_answered_without_digests(asking: Asking) -> None:
    answer = asking.ask(0, [2])
    assert (answer.digests, answer.all_zero) == (b"", True)


def test_answers_come_in_the_order_asked_when_asked_ahead(asking: Asking) -> None:
    asked = [number % len(DISK) for number in range(200)]
    for number in asked:
        asking.put(0, [number])
    told = [next(asking.call) for _ in asked]
    assert [answer.digests or ZERO_DIGEST for answer in told] == [
        digests_of(DISK[number]) for number in asked
    ]


def test_base_of_a_chain_is_told_as_its_newest_layer_saw_it(
    hub: RunningHub, agent: FakeAgent
) -> None:
    backed_up(hub, agent, FakeDisk(DISK))
    backed_up(hub, agent, FakeDisk("0.D.", change_id="52 aa/2"))
    job = opened(hub, agent, FakeDisk(DISK, change_id="52 aa/3"))
    with Asking(agent.channel, job) as asking:
        assert asking.ask().digests == digests_of("0BDC")


def test_disk_that_grew_is_told_zeros_behind_its_base(hub: RunningHub, agent: FakeAgent) -> None:
    backed_up(hub, agent, FakeDisk(DISK, capacity_bytes=4 * CLUSTER_BYTES - 512))
    capacity_bytes = (REGION_CLUSTERS + 5) * CLUSTER_BYTES
    disk = FakeDisk(DISK, change_id="52 aa/2", capacity_bytes=capacity_bytes)
    job = opened(hub, agent, disk)
    with Asking(agent.channel, job) as asking:
        whole = asking.ask(0)
        assert len(whole.digests) == REGION_CLUSTERS * 16
        assert whole.digests[: 2 * 16] == digests_of("AB")
        assert {whole.digests[4 * 16 + at * 16 :][:16] for at in range(99)} == {ZERO_DIGEST}
        assert asking.ask(1).all_zero
        assert asking.ask(1, [REGION_CLUSTERS + 4]).all_zero
        asking.put(2)
        assert refusal(lambda: next(asking.call))[1] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("region", "numbers", "problem"),
    [
        (1, b"", "region"),
        (2**32 - 1, b"", "region"),
        (0, b"\0\0\0", "cluster_numbers"),
        (0, [1, 1], "cluster_numbers"),
        (0, [2, 1], "cluster_numbers"),
        (0, [4], "cluster_numbers"),
        (0, [0, 2**32 - 1], "cluster_numbers"),
    ],
    ids=["region", "largest region", "cut off", "twice", "descending", "beyond", "far beyond"],
)
def test_request_for_what_the_disk_has_not_is_refused(
    hub: RunningHub, asking: Asking, region: int, numbers: list[int] | bytes, problem: str
) -> None:
    status, reason, facts = refusal(lambda: asking.ask(region, numbers))
    assert (status, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert facts["field"] == problem
    wait_until_nobody_reads(hub)


def test_disk_is_named_in_the_first_request_alone(agent: FakeAgent, job: str) -> None:
    with Asking(agent.channel) as unnamed:
        assert refusal(unnamed.ask)[2]["field"] == "job_id"
    with Asking(agent.channel, job) as asking:
        asking.ask()
        assert refusal(lambda: asking.ask(job_id=job))[2]["field"] == "job_id"


def test_nothing_asked_is_nothing_answered(hub: RunningHub, agent: FakeAgent) -> None:
    with Asking(agent.channel) as asking:
        asking.half_close()
        assert next(asking.call, None) is None


@pytest.mark.parametrize(
    ("job_id", "disk_index", "reason"),
    [("backup-nobody-1", 0, "JOB_NOT_FOUND"), (None, 1, "DISK_NOT_FOUND")],
    ids=["job", "disk"],
)
def test_base_of_nothing_is_refused(
    hub: RunningHub, agent: FakeAgent, job: str, job_id: str | None, disk_index: int, reason: str
) -> None:
    with Asking(agent.channel, job_id or job, disk_index) as asking:
        assert refusal(asking.ask)[:2] == (grpc.StatusCode.NOT_FOUND, reason)
    wait_until_nobody_reads(hub)


def test_disk_of_a_full_has_no_base(hub: RunningHub, agent: FakeAgent) -> None:
    job = opened(hub, agent, FakeDisk(DISK))
    with Asking(agent.channel, job) as asking:
        status, reason, facts = refusal(asking.ask)
    assert (status, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DISK_HAS_NO_BASE")
    assert (facts["job_id"], facts["disk_index"]) == (job, "0")


def test_disk_that_is_sent_in_full_instead_has_no_base_any_more(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    with Uploading(agent.channel) as up:
        up.open(job, 0, bytes_planned=4 * CLUSTER_BYTES, full_instead=True, full_reason="test")
        up.until("opened")
        with Asking(agent.channel, job) as asking:
            assert refusal(asking.ask)[1] == "DISK_HAS_NO_BASE"


def test_damaged_base_is_told_as_data_loss(
    hub: RunningHub, agent: FakeAgent, job: str, asking: Asking
) -> None:
    (manifest,) = [name for name in hub.files() if name.endswith(".manifest")]
    path = hub.repository_folder() / manifest
    content = bytearray(path.read_bytes())
    at = content.index(digests_of("B"))
    content[at] ^= 1
    path.write_bytes(content)
    assert refusal(asking.ask)[:2] == (grpc.StatusCode.DATA_LOSS, "LAYER_DAMAGED")
    # The job goes on: its agent sends the disk in full instead.
    assert hub.get(job).status == pb.BACKUP_STATUS_RUNNING


def test_base_can_be_asked_for_while_the_disk_is_uploaded_until_it_is_sealed(
    hub: RunningHub, agent: FakeAgent, job: str, asking: Asking
) -> None:
    with Uploading(agent.channel) as up:
        up.open(job, 0)
        up.until("opened")
        assert asking.ask().digests == digests_of(DISK)
        up.finish()
        up.sealed()
    # Nobody asks any more: the call has ended, and well.
    assert next(asking.call, None) is None
    wait_until_nobody_reads(hub)
    with Asking(agent.channel, job) as late:
        assert refusal(late.ask)[1] == "DISK_NOT_UPLOADABLE"


def test_reader_is_told_that_its_job_has_ended(
    hub: RunningHub, agent: FakeAgent, job: str, asking: Asking
) -> None:
    asking.ask()
    fail(agent, job)
    assert refusal(lambda: next(asking.call))[:2] == (grpc.StatusCode.ABORTED, "JOB_ENDED")
    wait_until_nobody_reads(hub)
    with Asking(agent.channel, job) as late:
        assert refusal(late.ask)[:2] == (grpc.StatusCode.ABORTED, "JOB_ENDED")


def test_reader_that_takes_no_answers_is_broken_off_when_its_job_ends(
    hub: RunningHub, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(active_uploads, "NOTICE_S", 0.1)
    capacity_bytes = REGION_CLUSTERS * CLUSTER_BYTES
    backed_up(hub, agent, FakeDisk(DISK, capacity_bytes=capacity_bytes))
    job = opened(hub, agent, FakeDisk(DISK, change_id="52 aa/2", capacity_bytes=capacity_bytes))
    answering = threading.Condition()
    answers = 0
    answer = base_digests._Telling._answer

    def counted(*arguments: Any) -> upload_pb2.BaseDigestsResponse:
        nonlocal answers
        with answering:
            answers += 1
            answering.notify_all()
        return answer(*arguments)

    monkeypatch.setattr(base_digests._Telling, "_answer", counted)
    with Asking(agent.channel, job) as asking:
        asking.ask()
        for _ in range(2000):  # 250 MiB of answers, more than any connection takes unread
            asking.put()
        with answering:
            while answering.wait(QUIET_S):
                pass  # until the hub has no room for another one
            assert answers < 2000
        (reader,) = hub.parts.uploads._readers
        fail(agent, job)
        hub.wait(job)
        assert reader.released.wait(ANSWER_S)
        # Told ABORTED it would have been, had the hub been able to tell it anything.
        with pytest.raises(grpc.RpcError) as broken:
            list(asking.call)
        assert broken.value.code() == grpc.StatusCode.CANCELLED
        wait_until_nobody_reads(hub)


def test_reader_that_breaks_off_is_forgotten(hub: RunningHub, asking: Asking) -> None:
    asking.ask()
    assert hub.parts.uploads.reader_count() == 1
    asking.call.cancel()
    wait_until_nobody_reads(hub)


def test_reader_is_told_that_the_hub_stops(hub: RunningHub, asking: Asking) -> None:
    asking.ask()
    hub.parts.uploads.stop(HubStopping())
    assert refusal(lambda: next(asking.call))[:2] == (
        grpc.StatusCode.UNAVAILABLE,
        "HUB_STOPPING",
    )


def test_base_is_read_by_several_at_once_and_that_is_no_upload(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    readers = [Asking(agent.channel, job) for _ in range(3)]
    try:
        for reader in readers:
            assert reader.ask().digests == digests_of(DISK)
        assert hub.parts.uploads.reader_count() == 3
        assert hub.parts.uploads.count() == 0
    finally:
        for reader in readers:
            reader.call.cancel()
    wait_until_nobody_reads(hub)
