import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from agent import upload_sending
from agent.ack_window import AckWindow
from agent.areas import EXTENT_BYTES, Area, to_clusters, whole_disk
from agent.base_digests import BaseDigests
from agent.cancellation import Cancellation
from agent.disk_reads import DiskReads
from agent.errors import (
    BaseDigestsOverdue,
    HubMisbehaved,
    HubRefused,
    HubUnreachable,
    JobCancelled,
    ReadMismatch,
    ReadStalled,
    UploadStalled,
)
from agent.hub_errors import backup_error
from agent.missed_changes import MissedChanges
from agent.patience import Patience
from agent.pipeline import EncoderPool
from agent.read_plan import ReadPlan
from agent.transports.disk_reader import Extent
from agent.transports.errors import NfcReadFailed
from agent.upload import UploadResult, upload_disk
from sendense.channel import open_channel
from sendense.clusters import CLUSTER_BYTES, REGION_BYTES
from sendense.v1 import backup_pb2, upload_pb2
from shared.errors import SendenseError
from shared.grpc_errors import abort_with
from tests.unit.agent.drawn_disks import MemoryReader, drawn
from tests.unit.agent.recording_hub import DEADLINE_S, RecordingHub, Upload

EXTENT_CLUSTERS = EXTENT_BYTES // CLUSTER_BYTES
THREADS = ("read-", "answers-", "watch-", "base-digests-")
PATIENT = Patience(answer_s=60, seal_s=60, read_s=60)


@pytest.fixture(autouse=True)
def no_threads_are_left() -> Iterator[None]:
    yield
    end = time.monotonic() + DEADLINE_S
    while left := [t for t in threading.enumerate() if t.name.startswith(THREADS)]:
        assert time.monotonic() < end, f"threads left: {left}"
        left[0].join(0.1)


@pytest.fixture
def hub() -> Iterator[RecordingHub]:
    with RecordingHub() as hub:
        yield hub


def uploaded(
    hub: RecordingHub,
    reader: MemoryReader,
    areas: list[Area] | None = None,
    *,
    base: bytes | None = None,
    cancellation: Cancellation | None = None,
    patience: Patience = PATIENT,
    told: dict[str, Any] | None = None,
) -> tuple[UploadResult, Upload]:
    """An upload of these areas, over that base when one is given; `told` changes the plan's facts."""
    if areas is None:
        areas = whole_disk(reader.capacity_bytes)
    areas = to_clusters(areas, reader.capacity_bytes)
    cancellation = cancellation or Cancellation()
    with (
        EncoderPool(2) as encoders,
        closing(open_channel(hub.address, dedicated=True)) as channel,
        closing(open_channel(hub.address, dedicated=True)) as base_channel,
        DiskReads(reader, "disk 1", cancellation=cancellation, read_s=patience.read_s) as reads,
    ):
        if base is None:
            plan = ReadPlan.allocated(areas)
        else:
            hub.bases["job-1", 1] = base
            plan = ReadPlan.changed(
                areas,
                BaseDigests(
                    base_channel,
                    job_id="job-1",
                    disk_index=1,
                    capacity_bytes=reader.capacity_bytes,
                    cancellation=cancellation,
                    answer_s=patience.answer_s,
                ),
            )
        result = upload_disk(
            channel,
            reads,
            replace(plan, **(told or {})),
            job_id="job-1",
            disk_index=1,
            encoders=encoders,
            cancellation=cancellation,
            patience=patience,
        )
    return result, hub.uploads["job-1", 1]


@pytest.mark.parametrize("cut_bytes", [0, 512, CLUSTER_BYTES - 512])
def test_full_upload_carries_the_disk_and_leaves_zeros_out(
    hub: RecordingHub, cut_bytes: int
) -> None:
    text = "aB..c" + "." * 70 + "D" * 40 + "e"
    content = drawn(text, cut_bytes=cut_bytes)
    result, upload = uploaded(hub, MemoryReader(content))
    disk = bytearray(len(content))
    upload.apply_to(disk)
    assert bytes(disk) == content
    assert sorted(upload.sizes) == [n for n, letter in enumerate(text) if letter != "."]
    assert upload.finish is not None
    assert upload.finish.frame_count == len(upload.batches) == result.frame_count
    assert upload.finish.cluster_count == len(upload.sizes) == result.cluster_count
    assert upload.finish.payload_bytes == result.payload_bytes == result.bytes_stored
    assert upload.finish.bytes_read == result.bytes_read == len(content)
    assert upload.open.bytes_planned == len(content)
    assert upload.open.read_method == backup_pb2.READ_METHOD_ALLOCATED
    assert not upload.open.full_instead
    assert upload.finish.bytes_unchanged == 0
    assert hub.digests_asked == []
    assert result.root_digest == b"r" * 32


def test_incremental_upload_keeps_clusters_that_became_zero(hub: RecordingHub) -> None:
    before = drawn("abcdefgh" * 40)
    now = bytearray(before)
    now[3 * CLUSTER_BYTES : 5 * CLUSTER_BYTES] = bytes(2 * CLUSTER_BYTES)
    now[EXTENT_BYTES : 2 * EXTENT_BYTES] = bytes(EXTENT_BYTES)
    now[-700:] = b"x" * 700
    changed = [
        Area(3 * CLUSTER_BYTES + 512, 2 * CLUSTER_BYTES - 1024),
        Area(EXTENT_BYTES, EXTENT_BYTES),
        Area(len(now) - 700, 700),
    ]
    _, upload = uploaded(hub, MemoryReader(bytes(now)), changed, base=before)
    assert upload.open.read_method == backup_pb2.READ_METHOD_CHANGED
    assert {number for number, size in upload.sizes.items() if size == 0} == {
        3, 4, *range(EXTENT_CLUSTERS, 2 * EXTENT_CLUSTERS),
    }  # fmt: skip
    disk = bytearray(before)
    upload.apply_to(disk)
    assert disk == now


@pytest.mark.hostile
@pytest.mark.parametrize("cut_bytes", [0, 512, CLUSTER_BYTES - 512])
def test_clusters_that_equal_the_base_are_read_and_not_sent(
    hub: RecordingHub, cut_bytes: int
) -> None:
    text = "aB..c" + "." * 70 + "D" * 40 + "e"
    before = drawn(text, cut_bytes=cut_bytes)
    now = drawn("aX..." + "." * 40 + "y" + "." * 29 + "D" * 40 + "e", cut_bytes=cut_bytes)
    result, upload = uploaded(hub, MemoryReader(now), base=before)
    # What is no more is a zero cluster, what was never there is not sent.
    assert {n: size == 0 for n, size in upload.sizes.items()} == {1: False, 4: True, 45: False}
    disk = bytearray(before)
    upload.apply_to(disk)
    assert bytes(disk) == now
    assert upload.finish is not None
    assert upload.finish.bytes_read == upload.open.bytes_planned == len(now)
    assert upload.finish.bytes_unchanged == result.bytes_unchanged == len(now) - 3 * CLUSTER_BYTES


@pytest.mark.hostile
def test_last_cluster_off_the_grid_counts_with_its_bytes(hub: RecordingHub) -> None:
    result, _ = uploaded(
        hub, MemoryReader(drawn("ab", cut_bytes=512)), base=drawn("ac", cut_bytes=512)
    )
    assert result.bytes_unchanged == CLUSTER_BYTES


def test_upload_of_nothing_is_opened_and_sealed(hub: RecordingHub) -> None:
    result, upload = uploaded(hub, MemoryReader(drawn("ab")), [], base=drawn("ab"))
    assert upload.batches == []
    assert upload.finish is not None
    assert result.bytes_read == result.frame_count == 0


def test_upload_tells_why_a_full_replaces_an_increment(hub: RecordingHub) -> None:
    _, upload = uploaded(
        hub, MemoryReader(drawn("ab")), told={"full_reason": "the base is damaged"}
    )
    assert upload.open.full_instead
    assert upload.open.full_reason == "the base is damaged"


@pytest.mark.hostile
def test_upload_tells_of_the_sample_and_counts_what_tracking_missed(hub: RecordingHub) -> None:
    sampling = backup_pb2.DiskSampling(clusters_sampled=9, clusters_missed=1)
    missed = MissedChanges()
    missed.sampled([Area(0, CLUSTER_BYTES)], np.array([3]))
    _, upload = uploaded(
        hub,
        MemoryReader(drawn("XbXX")),
        base=drawn("abcd"),
        told={"reason": "missed", "sampling": sampling, "missed": missed},
    )
    assert upload.open.sampling == sampling
    assert upload.open.read_reason == "missed"
    assert upload.finish is not None
    assert upload.finish.clusters_missed == 2


@pytest.mark.hostile
def test_base_that_is_not_told_of_in_time_ends_the_upload(hub: RecordingHub) -> None:
    asked = 0

    def silent_in_the_upload(request: object, context: grpc.ServicerContext) -> None:
        nonlocal asked
        asked += 1
        ended = threading.Event()
        # The first is the look at the base before the upload.
        if asked > 1 and context.add_callback(ended.set):
            assert ended.wait(DEADLINE_S)

    hub.before_digests = silent_in_the_upload
    with pytest.raises(BaseDigestsOverdue):
        uploaded(hub, MemoryReader(drawn("ab")), base=drawn("aa"), patience=Patience(answer_s=0.3))
    assert asked == 2
    assert all(upload.finish is None for upload in hub.uploads.values())


def test_frames_stay_within_a_region(hub: RecordingHub) -> None:
    # A disk of a bit more than one region whose zeros cost no memory here.
    class Sparse(MemoryReader):
        capacity_bytes = REGION_BYTES + 4 * CLUSTER_BYTES

        def read(self, areas):  # type: ignore[no-untyped-def]
            for area in areas:
                yield Extent(area.start, drawn("a" * (area.length // CLUSTER_BYTES)))

    around = Area(REGION_BYTES - 4 * CLUSTER_BYTES, 8 * CLUSTER_BYTES)
    _, upload = uploaded(hub, Sparse(b""), [around])
    assert [batch.region for batch in upload.batches] == [0, 1]


def test_upload_stops_sending_when_64_mib_are_not_acknowledged(
    hub: RecordingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    sent = AckWindow.sent

    def watch(window: AckWindow, payload_bytes: int) -> None:
        nonlocal most
        sent(window, payload_bytes)
        most = max(most, window._bytes)

    monkeypatch.setattr(AckWindow, "sent", watch)
    hub.ack_every = 0

    def acknowledge_late(upload: Upload, context: grpc.ServicerContext) -> None:
        if len(upload.batches) == 31:
            hub.ack_every = 1

    hub.before_frame = acknowledge_late
    _, upload = uploaded(hub, MemoryReader(drawn("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 60)))
    assert len(upload.batches) > 40
    assert most == 64 << 20


def test_progress_is_reported_while_only_zeros_are_read(hub: RecordingHub) -> None:
    def reported() -> list[int]:
        upload = hub.uploads.get(("job-1", 1))
        return upload.progress if upload else []

    class Slow(MemoryReader):
        def read(self, areas):  # type: ignore[no-untyped-def]
            for number, extent in enumerate(super().read(areas)):
                # The reader goes on once the hub has heard of what was read before.
                while number == 4 and not reported():
                    time.sleep(0.01)
                yield extent

    _, upload = uploaded(hub, Slow(bytes(8 * EXTENT_BYTES)))
    assert upload.progress[0] == 4 * EXTENT_BYTES
    assert upload.batches == []


@pytest.mark.parametrize("at_frame", [0, 1, 5], ids="frame-{}".format)
def test_refusal_of_the_hub_ends_the_upload_with_its_reason(
    hub: RecordingHub, at_frame: int
) -> None:
    class RepositoryFull(SendenseError):
        code = "REPOSITORY_FULL"
        status = grpc.StatusCode.RESOURCE_EXHAUSTED
        text = "no space left"

    def refuse(upload: Upload, context: grpc.ServicerContext) -> None:
        if len(upload.batches) == at_frame:
            abort_with(context, RepositoryFull())

    hub.before_frame = refuse
    reader = MemoryReader(drawn("ABCDEFGH" * 100))
    with pytest.raises(HubRefused, match="no space left") as caught:
        uploaded(hub, reader)
    assert caught.value.reason == "REPOSITORY_FULL"


def test_status_without_error_info_is_the_reason_itself(hub: RecordingHub) -> None:
    hub.before_seal = lambda upload, context: context.abort(
        grpc.StatusCode.DATA_LOSS, "one frame is missing"
    )
    with pytest.raises(HubRefused, match="one frame is missing") as caught:
        uploaded(hub, MemoryReader(drawn("ab")))
    assert caught.value.reason == "DATA_LOSS"


def test_error_of_the_reader_ends_the_upload_without_a_finish(hub: RecordingHub) -> None:
    error = NfcReadFailed("esxi", "disk.vmdk", 5 * EXTENT_BYTES, EXTENT_BYTES, "medium error")
    reader = MemoryReader(drawn("ABCDEFGH" * 40), fail_at={5: error})
    with pytest.raises(NfcReadFailed):
        uploaded(hub, reader)
    assert reader.faults_fired == 1
    assert all(upload.finish is None for upload in hub.uploads.values())


@pytest.mark.parametrize(
    "given",
    [
        None,
        Extent(EXTENT_BYTES, bytes(EXTENT_BYTES - 512)),
        Extent(0, bytes(EXTENT_BYTES)),
    ],
    ids=["nothing", "a shorter extent", "another extent"],
)
def test_reader_that_answers_something_else_fails_the_upload(
    hub: RecordingHub, given: Extent | None
) -> None:
    reader = MemoryReader(drawn("abcd" * 40), change={1: given})
    with pytest.raises(ReadMismatch):
        uploaded(hub, reader)
    assert reader.faults_fired == 1
    assert all(upload.finish is None for upload in hub.uploads.values())


def test_hub_that_acknowledges_nothing_is_called_stalled(hub: RecordingHub) -> None:
    hub.ack_every = 0
    released = threading.Event()
    hub.before_seal = lambda upload, context: released.wait(DEADLINE_S)
    try:
        with pytest.raises(UploadStalled):
            uploaded(
                hub, MemoryReader(drawn("A" * 100)), patience=Patience(answer_s=0.1, seal_s=0.1)
            )
    finally:
        released.set()


def test_blocked_reader_is_closed_when_it_gives_nothing(hub: RecordingHub) -> None:
    reader = MemoryReader(drawn("a" * 100), block_at=1)
    with pytest.raises(ReadStalled):
        uploaded(hub, reader, patience=Patience(read_s=0.1))
    assert reader.faults_fired == 1
    assert reader.closed


@pytest.mark.hostile
def test_upload_whose_reader_waits_long_gives_signs_of_life(
    hub: RecordingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_sending, "SIGN_OF_LIFE_S", 0.0)

    class Slow(MemoryReader):
        """Goes on once the hub heard twice that nothing more was read."""

        def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
            for extent in super().read(areas):
                if extent.offset:
                    self.faults_fired += heard_twice_the_same.wait(DEADLINE_S)
                yield extent

    heard_twice_the_same = threading.Event()

    def heard(upload: Upload) -> None:
        if upload.progress[-2:-1] == upload.progress[-1:]:
            heard_twice_the_same.set()

    hub.after_progress = heard
    content = drawn("abcd" * 10)
    reader = Slow(content)
    _, upload = uploaded(hub, reader)
    assert reader.faults_fired == 1
    assert upload.progress[-1] <= len(content)


def test_cancellation_ends_an_upload_whose_reader_is_blocked(hub: RecordingHub) -> None:
    reader = MemoryReader(drawn("a" * 100), block_at=1)
    cancellation = Cancellation()

    def cancel() -> None:
        assert reader.blocked.wait(DEADLINE_S)
        cancellation.cancel(JobCancelled("enough"))

    threading.Thread(target=cancel).start()
    with pytest.raises(JobCancelled, match="enough"):
        uploaded(hub, reader, cancellation=cancellation)
    assert reader.closed


def test_cancellation_ends_an_upload_that_waits_for_the_window(hub: RecordingHub) -> None:
    hub.ack_every = 0
    cancellation = Cancellation()
    arrived = threading.Event()

    def cancel() -> None:
        assert arrived.wait(DEADLINE_S)
        cancellation.cancel(JobCancelled("enough"))

    def see(upload: Upload, context: grpc.ServicerContext) -> None:
        if len(upload.batches) == 31:
            arrived.set()

    hub.before_frame = see
    threading.Thread(target=cancel).start()
    with pytest.raises(JobCancelled):
        uploaded(
            hub,
            MemoryReader(drawn("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 60)),
            cancellation=cancellation,
        )


def test_upload_cancelled_before_it_begins_sends_no_frame(hub: RecordingHub) -> None:
    cancellation = Cancellation()
    cancellation.cancel(JobCancelled("too late"))
    with pytest.raises(JobCancelled):
        uploaded(hub, MemoryReader(drawn("a")), cancellation=cancellation)
    assert all(upload.batches == [] for upload in hub.uploads.values())


def test_hub_that_goes_away_ends_the_upload(hub: RecordingHub) -> None:
    gone = threading.Event()

    def vanish(upload: Upload, context: grpc.ServicerContext) -> None:
        if len(upload.batches) == 2 and not gone.is_set():
            gone.set()
            threading.Thread(target=hub.close).start()

    hub.before_frame = vanish
    reader = MemoryReader(drawn("ABCDEFGH" * 200), block_at=40)
    with pytest.raises(HubUnreachable):
        uploaded(hub, reader)
    assert gone.is_set()


def test_upload_without_a_hub_says_unreachable() -> None:
    with RecordingHub() as hub:
        pass
    with pytest.raises(HubUnreachable) as caught:
        uploaded(hub, MemoryReader(drawn("a" * 100)))
    # It ended a job, whose owner is told what to do; a look at the hub is not a job.
    assert backup_error(caught.value).message == f"{caught.value}; start the backup again"
    assert "start the backup again" not in str(caught.value)


Part = upload_pb2.UploadDiskResponse
OPENED = Part(opened=upload_pb2.UploadOpened())
SEALED = Part(sealed=upload_pb2.UploadSealed(root_digest=b"s" * 32, bytes_stored=7))


class ScriptedHub(RecordingHub):
    """Gives these answers to an upload: the first to its opening, the others as frames come."""

    def __init__(self, *answers: upload_pb2.UploadDiskResponse) -> None:
        super().__init__()
        self.answers = answers
        self.taken: list[str | None] = []

    def UploadDisk(
        self,
        request_iterator: Iterator[upload_pb2.UploadDiskRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[upload_pb2.UploadDiskResponse]:
        answers = iter(self.answers)
        for request in request_iterator:
            self.taken.append(request.WhichOneof("part"))
            if self.taken[-1] != "progress" and (answer := next(answers, None)):
                yield answer


@pytest.mark.parametrize(
    "answers",
    [
        (OPENED, SEALED),
        (OPENED, Part(ack=upload_pb2.UploadAck(durable_frames=1)), SEALED),
    ],
    ids=["at the first frame", "after an ack"],
)
def test_seal_before_everything_was_sent_is_no_success(
    answers: tuple[upload_pb2.UploadDiskResponse, ...],
) -> None:
    # A few frames come, then the reader gives nothing more.
    reader = MemoryReader(drawn("ABCDEFGH" * 40), block_at=4)
    with ScriptedHub(*answers) as hub, pytest.raises(HubMisbehaved, match="sealed disk 1 before"):
        uploaded(hub, reader)
    assert "finish" not in hub.taken
    assert reader.closed


def test_disk_that_was_sealed_by_an_earlier_call_is_a_success() -> None:
    with ScriptedHub(SEALED) as hub:
        hub.uploads["job-1", 1] = Upload(upload_pb2.UploadOpen())
        result, _ = uploaded(hub, MemoryReader(drawn("ab" * 100)))
    assert (result.root_digest, result.bytes_stored, result.frame_count) == (b"s" * 32, 7, 0)
    assert "frame" not in hub.taken


def test_stream_that_ends_without_a_seal_is_no_success(
    hub: RecordingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_early(upload: Upload, context: grpc.ServicerContext) -> None:
        raise StopUpload

    class StopUpload(Exception):
        pass

    upload_disk_rpc = RecordingHub.UploadDisk

    def swallow(self, request_iterator, context):  # type: ignore[no-untyped-def]
        try:
            yield from upload_disk_rpc(self, request_iterator, context)
        except StopUpload:
            return

    monkeypatch.setattr(RecordingHub, "UploadDisk", swallow)
    with RecordingHub() as ending:
        ending.before_seal = end_early
        with pytest.raises(HubMisbehaved, match="without sealing"):
            uploaded(ending, MemoryReader(drawn("ab")))
