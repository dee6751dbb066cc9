"""Upload of one disk: read, encode, send, wait until the hub has sealed it.

Threads of one upload, each owning what it writes:

- the caller watches deadlines and ends the others;
- `read` pulls extents from the reader and hands them to the encoder pool;
- gRPC's sender runs `_requests`, which takes encoded batches in order;
- `answers` takes the hub's acknowledgements.

They share one condition. The first error of any of them, or a cancellation,
is what the caller gets; it closes the queue, the reader and the call, which
unblocks the rest.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import grpc
import structlog

from agent.ack_window import AckWindow
from agent.areas import EXTENT_BYTES, Area, split_extents, total_bytes
from agent.bounded_queue import BoundedQueue, QueueClosed, QueueEnded
from agent.cancellation import Cancellation
from agent.errors import HubMisbehaved, ReadMismatch, ReadStalled, UploadStalled
from agent.hub_errors import hub_error
from agent.pipeline import EncoderPool, FrameBuilder
from agent.transports.disk_reader import DiskReader, Extent
from sendense.codec import EncodedClusters
from sendense.v1 import upload_pb2 as pb
from sendense.v1.upload_pb2_grpc import UploadServiceStub

# Extents between the reader and the frames: enough to keep the encoders busy
# while one frame waits for the network, 2 x 2 MiB each at worst.
EXTENTS_IN_FLIGHT: Final = 8
PROGRESS_INTERVAL_S: Final = 0.25
ZERO_EXTENT: Final = bytes(EXTENT_BYTES)
JOIN_S: Final = 30.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an upload waits, in seconds, before it calls the other side stalled."""

    answer_s: float = 120.0  # for an acknowledgement, or for the upload to be opened
    seal_s: float = 900.0  # for the hub to write tables and sync the layer
    read_s: float = 300.0  # for one extent; the transport's own time-outs come first


@dataclass(frozen=True, slots=True)
class UploadResult:
    """A sealed disk: what was read, sent and stored, in bytes."""

    root_digest: bytes
    bytes_stored: int
    bytes_read: int
    payload_bytes: int
    cluster_count: int
    frame_count: int


def upload_disk(
    channel: grpc.Channel,
    reader: DiskReader,
    areas: Sequence[Area],
    *,
    job_id: str,
    disk_index: int,
    keep_zeros: bool,
    encoders: EncoderPool,
    full_reason: str = "",
    cancellation: Cancellation | None = None,
    patience: Patience | None = None,
) -> UploadResult:
    """Send the clusters of `areas` and return once the hub has sealed the layer.

    `areas` start on cluster boundaries, ascend, are disjoint, and end on a
    cluster boundary or at the disk's end (areas.to_clusters). Increments keep zero
    clusters, fulls leave them out. `full_reason` says why a planned increment
    became a full. `channel` should carry nothing else.

    Raises HubRefused, HubUnreachable, HubMisbehaved, UploadStalled,
    ReadStalled, ReadMismatch, what the reader raises, and the error of
    `cancellation`. After an error the reader is closed and no thread is left.
    """
    upload = _Upload(
        UploadServiceStub(channel),
        reader,
        areas,
        pb.UploadOpen(
            job_id=job_id,
            disk_index=disk_index,
            bytes_planned=total_bytes(areas),
            full_instead=bool(full_reason),
            full_reason=full_reason,
        ),
        keep_zeros=keep_zeros,
        encoders=encoders,
        patience=patience or Patience(),
    )
    with (cancellation or Cancellation()).calling(upload.fail):
        return upload.run()


class _Upload:
    def __init__(
        self,
        stub: UploadServiceStub,
        reader: DiskReader,
        areas: Sequence[Area],
        open_message: pb.UploadOpen,
        *,
        keep_zeros: bool,
        encoders: EncoderPool,
        patience: Patience,
    ) -> None:
        self._stub = stub
        self._reader = reader
        self._areas = areas
        self._open = open_message
        self._disk_index = open_message.disk_index
        self._keep_zeros = keep_zeros
        self._encoders = encoders
        self._patience = patience

        self._encoded = BoundedQueue[Future[EncodedClusters]](EXTENTS_IN_FLIGHT)
        self._bytes_read = 0  # written by `read` alone
        self._reading_since: float | None = None  # written by `read` alone
        self._cluster_count = self._payload_bytes = 0  # written by gRPC's sender alone

        self._changed = threading.Condition()  # guards what follows
        self._error: BaseException | None = None
        self._sealed: pb.UploadSealed | None = None
        self._answered = False
        self._opened = False
        self._finished = False
        self._window = AckWindow()
        self._hub_owes_since: float | None = None

    def run(self) -> UploadResult:
        """Do it all, in this thread and its helpers."""
        call = self._stub.UploadDisk(self._requests())
        threads = [
            threading.Thread(target=self._read, name=f"read-disk-{self._disk_index}", daemon=True),
            threading.Thread(
                target=self._take_answers,
                args=(call,),
                name=f"answers-{self._disk_index}",
                daemon=True,
            ),
        ]
        for thread in threads:
            thread.start()
        try:
            sealed = self._watch()
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            self._encoded.close()
            if threads[0].is_alive():
                self._reader.close()
            call.cancel()
            for thread in threads:
                thread.join(JOIN_S)
                if thread.is_alive():
                    _log.error("upload_thread_does_not_end", thread=thread.name)
        return UploadResult(
            root_digest=sealed.root_digest,
            bytes_stored=sealed.bytes_stored,
            bytes_read=self._bytes_read,
            payload_bytes=self._payload_bytes,
            cluster_count=self._cluster_count,
            frame_count=self._window.sent_frames,
        )

    def fail(self, error: BaseException) -> None:
        """End the upload with this error unless it has ended already. Any thread; never blocks."""
        with self._changed:
            if self._error is None and self._sealed is None:
                self._error = error
                self._changed.notify_all()

    # The caller's thread.

    def _watch(self) -> pb.UploadSealed:
        with self._changed:
            while True:
                if self._error is not None:
                    raise self._error
                if self._sealed is not None:
                    return self._sealed
                self._check_deadlines(time.monotonic())
                self._changed.wait(1.0)

    def _check_deadlines(self, now: float) -> None:
        limit_s = self._patience.seal_s if self._finished else self._patience.answer_s
        if self._hub_owes_since is not None and now - self._hub_owes_since > limit_s:
            raise UploadStalled(self._disk_index, limit_s)
        reading_since = self._reading_since
        if reading_since is not None and now - reading_since > self._patience.read_s:
            raise ReadStalled(self._disk_index, self._patience.read_s)

    # The reader's thread.

    def _read(self) -> None:
        with self._failing():
            extents = self._reader.read(split_extents(self._areas))
            for area in split_extents(self._areas):
                self._reading_since = time.monotonic()
                extent = next(extents, None)
                self._reading_since = None
                if extent is None or extent.offset != area.start or len(extent.data) != area.length:
                    raise ReadMismatch(self._disk_index, _mismatch(area, extent))
                data = extent.data
                # Short cut for holes: comparing bytes of equal length runs at memory speed.
                if self._keep_zeros or data != ZERO_EXTENT:
                    self._encoded.put(
                        self._encoders.submit(area.start, data, keep_zeros=self._keep_zeros)
                    )
                self._bytes_read += area.length
            self._reading_since = time.monotonic()
            if next(extents, None) is not None:
                raise ReadMismatch(self._disk_index, "it gave more than was asked for")
            self._reading_since = None
            self._encoded.end()

    # gRPC's sending thread.

    def _requests(self) -> Iterator[pb.UploadDiskRequest]:
        with self._failing():
            self._hub_owes()
            yield pb.UploadDiskRequest(open=self._open)
            self._wait_until(lambda: self._opened)
            builder = FrameBuilder()
            reported_bytes, reported_at = 0, time.monotonic()
            while True:
                try:
                    encoding = self._encoded.get(PROGRESS_INTERVAL_S)
                except QueueEnded:
                    break
                if encoding is not None:
                    for batch in builder.add(encoding.result(self._patience.read_s)):
                        yield self._frame(batch)
                now = time.monotonic()
                if now - reported_at >= PROGRESS_INTERVAL_S and self._bytes_read != reported_bytes:
                    reported_bytes, reported_at = self._bytes_read, now
                    yield pb.UploadDiskRequest(
                        progress=pb.UploadProgress(bytes_read=reported_bytes)
                    )
            for batch in builder.finish():
                yield self._frame(batch)
            yield self._finish()

    def _frame(self, batch: EncodedClusters) -> pb.UploadDiskRequest:
        """The batch as a request, once the window has room for it."""
        frame = batch.to_frame()
        size = batch.payload_bytes
        self._wait_until(lambda: self._window.has_room_for(size))
        with self._changed:
            self._window.sent(size)
        self._hub_owes()
        self._cluster_count += len(batch)
        self._payload_bytes += size
        return pb.UploadDiskRequest(frame=frame)

    def _finish(self) -> pb.UploadDiskRequest:
        with self._changed:
            self._finished = True
            self._hub_owes_since = time.monotonic()
        return pb.UploadDiskRequest(
            finish=pb.UploadFinish(
                frame_count=self._window.sent_frames,
                cluster_count=self._cluster_count,
                payload_bytes=self._payload_bytes,
                bytes_read=self._bytes_read,
            )
        )

    def _hub_owes(self) -> None:
        """The hub has something to answer from now on, if it had not before."""
        with self._changed:
            if self._hub_owes_since is None:
                self._hub_owes_since = time.monotonic()

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for the hub. Raises QueueClosed when the upload ends first; `_watch` has the deadline."""
        with self._changed:
            self._changed.wait_for(lambda: condition() or self._error is not None or self._sealed)
            if self._error is not None or self._sealed is not None:
                raise QueueClosed

    # The answers' thread.

    def _take_answers(self, call: Iterator[pb.UploadDiskResponse]) -> None:
        with self._failing():
            for answer in call:
                self._take(answer)
            raise HubMisbehaved("it ended an upload without sealing it")

    def _take(self, answer: pb.UploadDiskResponse) -> None:
        with self._changed:
            match answer.WhichOneof("part"):
                case "opened":
                    self._opened = True
                case "ack":
                    self._window.acknowledged(answer.ack.durable_frames)
                case "sealed":
                    # Before any frame: the layer was sealed by an earlier call.
                    if not self._finished and self._answered:
                        raise HubMisbehaved(
                            f"it sealed disk {self._disk_index} before the agent sent all of it"
                        )
                    if self._error is None:
                        self._sealed = answer.sealed
                case _:
                    pass
            self._answered = True
            owes = self._finished or self._window.outstanding_frames
            self._hub_owes_since = time.monotonic() if owes else None
            self._changed.notify_all()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """End the upload with whatever is raised inside: nothing outlives a thread's last frame."""
        try:
            yield
        except QueueClosed:
            pass  # somebody else ended the upload
        except grpc.RpcError as error:
            self.fail(hub_error(error))
        except Exception as error:  # noqa: BLE001 - the caller raises it
            self.fail(error)


def _mismatch(asked: Area, got: Extent | None) -> str:
    given = f"{len(got.data)} bytes at {got.offset}" if got is not None else "the end"
    return f"asked for {asked.length} bytes at {asked.start}, got {given}"
