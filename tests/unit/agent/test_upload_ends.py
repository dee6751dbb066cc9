"""What ends an upload, and with which error."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from agent.areas import EXTENT_BYTES
from agent.cancellation import Cancellation
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
from agent.patience import Patience
from agent.transports.disk_reader import Extent
from agent.transports.errors import NfcReadFailed
from sendense.v1 import upload_pb2
from shared.errors import SendenseError
from shared.grpc_errors import abort_with
from tests.unit.agent.drawn_disks import MemoryReader, drawn
from tests.unit.agent.recording_hub import DEADLINE_S, RecordingHub, Upload
from tests.unit.agent.uploading import no_threads_are_left, uploaded  # noqa: F401


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
