"""Upload of one disk: open, frames, finish; acknowledged as they become durable.

Two threads. `receive` (its own) takes the parts, appends, seals, and alone
opens and ends the layer writer. `answers` (gRPC's) syncs about every 16 MiB
or second and yields the responses. Whoever finds an error notes it; the
answers' thread raises it into the RPC, which ends the requests.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import grpc
import structlog

from hub.catalog.models import MAX_TEXT_CHARS, BackupDisk
from hub.catalog.queries import find_disk, find_job
from hub.catalog.upload_disk import SealedFacts, begin_upload, break_disk, seal_disk
from hub.errors import FrameDamaged, FrameRefused, ProtocolViolation, UploadStalled, UploadTruncated
from hub.jobs.board import DiskProgress
from hub.jobs.end import ask_to_end, catalog_attempts, fail_job, retry_catalog
from hub.jobs.parts import Parts
from hub.jobs.read_facts import method_opened, sampling_opened
from hub.jobs.repositories import layer_base, open_repository
from hub.jobs.states import Event
from hub.repository import LayerIdentity, LayerWriter
from sendense.clusters import CLUSTER_BYTES, cluster_count
from sendense.codec import FrameCorrupt, FrameInvalid, from_frame
from sendense.v1 import clusters_pb2
from sendense.v1 import upload_pb2 as pb
from shared.errors import SendenseError

SYNC_BYTES: Final = 16 << 20
SYNC_INTERVAL_S: Final = 1.0
# An increment's first look at its base takes a while for a large disk.
OPEN_TIMEOUT_S: Final = 100.0
BREAK_NOTICE_S: Final = 1.0
_log = structlog.get_logger(__name__)


class Rpc(Protocol):
    """What an upload needs of its RPC (grpc.ServicerContext has it)."""

    def add_callback(self, callback: Callable[[], None]) -> bool: ...

    def cancel(self) -> object: ...


def receive_disk(
    parts: Parts, requests: Iterator[pb.UploadDiskRequest], rpc: Rpc
) -> Iterator[pb.UploadDiskResponse]:
    """Serve one UploadDisk RPC. Raises the error to end it with."""
    upload = _Upload(parts, requests, rpc)
    threading.Thread(target=upload.receive, name="receive-disk", daemon=True).start()
    yield from upload.answers()


class _Upload:
    def __init__(
        self,
        parts: Parts,
        requests: Iterator[pb.UploadDiskRequest],
        rpc: Rpc,
    ) -> None:
        self.job_id = ""
        self.disk_index = -1
        self.released = threading.Event()
        self._parts = parts
        self._requests = requests
        self._rpc = rpc
        self._rpc_ended = threading.Event()

        # Of the receiving thread.
        self._disk_id: int | None = None  # set while the row is this upload's
        self._site = ""
        self._change_id = ""
        self._progress = DiskProgress()
        self._limit_bytes = 0  # the disk's capacity in whole clusters
        self._clusters = 0
        self._waiting_since: float | None = None  # for the next part; read by others

        # Between the threads, under the condition.
        self._changed = threading.Condition()
        self._opened = False
        self._sealed: pb.UploadSealed | None = None
        self._error: SendenseError | None = None
        self._aborted = False  # the error came from outside: the job ended, the hub stops
        self._frames = 0
        self._unsynced_bytes = 0

        # Held while syncing, so that the writer is not sealed or discarded meanwhile.
        self._writing = threading.Lock()
        self._writer: LayerWriter | None = None

        if not rpc.add_callback(self._end_of_rpc):
            self._end_of_rpc()

    # Any thread.

    def _end_of_rpc(self) -> None:
        self._rpc_ended.set()
        with self._changed:
            self._changed.notify_all()

    def abort(self, error: SendenseError) -> None:
        """End the upload; the caller deals with the job."""
        with self._changed:
            if self._error is None and self._sealed is None:
                self._error, self._aborted = error, True
                self._changed.notify_all()

    def expire(self, limit_s: float) -> None:
        """Fail the upload when it has waited so long for its next part."""
        since = self._waiting_since
        if since is not None and time.monotonic() - since > limit_s:
            self._note(UploadStalled(self.job_id, self.disk_index, round(limit_s)))

    def cancel_rpc(self) -> None:
        """Break the RPC off: the peer takes no answers."""
        self._rpc.cancel()

    # The RPC's thread.

    def answers(self) -> Iterator[pb.UploadDiskResponse]:
        """Opened, acknowledgements, sealed. Raises the upload's error."""
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._over(), OPEN_TIMEOUT_S)
            opened = self._opened
            if not opened and not self._over():
                self._error = ProtocolViolation("the upload was not opened in time")
        if opened:
            yield pb.UploadDiskResponse(opened=pb.UploadOpened())
        while True:
            with self._changed:
                self._changed.wait_for(self._due, SYNC_INTERVAL_S)
                error, sealed = self._error, self._sealed
            if sealed is not None:
                yield pb.UploadDiskResponse(sealed=sealed)
                return
            if error is not None:
                raise error
            if self._rpc_ended.is_set():
                # Nobody hears more; the receiving thread deals with what was sent.
                return
            ack = self._sync()
            if ack is not None:
                yield pb.UploadDiskResponse(ack=ack)

    def _settled(self) -> bool:
        return self._sealed is not None or self._error is not None

    def _over(self) -> bool:
        return self._settled() or self._rpc_ended.is_set()

    def _due(self) -> bool:
        return self._over() or self._unsynced_bytes >= SYNC_BYTES

    def _sync(self) -> pb.UploadAck | None:
        with self._writing:
            if self._writer is None or not self._unsynced_bytes:
                return None
            with self._changed:
                self._unsynced_bytes = 0
            try:
                point = self._writer.sync()
            except SendenseError as error:
                self._note(error)
                raise
        return pb.UploadAck(durable_frames=point.frames, durable_through_cluster=point.last_cluster)

    # The receiving thread.

    def receive(self) -> None:
        """Take the parts until the disk is sealed or the upload has failed."""
        try:
            self._receive()
        except SendenseError as error:
            self._fail(error)
        except grpc.RpcError:
            self._fail(None)
        except Exception:  # noqa: BLE001 - nobody above to report a defect to
            _log.exception("upload_failed_unexpectedly", job_id=self.job_id, disk=self.disk_index)
            self._fail(SendenseError())
        finally:
            self._release()

    def _receive(self) -> None:
        first = next(self._requests, None)
        if first is None or first.WhichOneof("part") != "open":
            raise ProtocolViolation("an upload begins with open")
        sealed = self._open(first.open)
        if sealed is not None:
            self._seal_with(sealed)
            return
        writer = self._writer
        assert writer is not None
        while (part := self._next_part()) is not None:
            if self._error is not None:
                raise self._error
            kind = part.WhichOneof("part")
            if kind == "frame":
                self._append(writer, part.frame)
            elif kind == "progress":
                self._check_bytes("bytes_read", part.progress.bytes_read)
                self._has_read(part.progress.bytes_read)
            elif kind == "finish":
                self._finish(part.finish)
                return
            else:
                raise ProtocolViolation(f"{kind} has no place in an opened upload")
        # The requests of a broken RPC may end like those of a finished one; that
        # it broke is told a moment later.
        broke = self._rpc_ended.wait(BREAK_NOTICE_S)
        if self._error is not None:
            raise self._error
        if broke:
            raise grpc.RpcError
        raise UploadTruncated(self.job_id, self.disk_index, "it ended without finish")

    def _next_part(self) -> pb.UploadDiskRequest | None:
        self._waiting_since = time.monotonic()
        try:
            return next(self._requests, None)
        finally:
            self._waiting_since = None

    def _open(self, opening: pb.UploadOpen) -> BackupDisk | None:
        """Claim the disk and begin its layer; a sealed disk is returned instead."""
        self.job_id, self.disk_index = opening.job_id, opening.disk_index
        self._parts.uploads.enter(self)
        with self._parts.catalog.read() as session:
            frozen = find_disk(session, self.job_id, self.disk_index)
            context = frozen.job.context
        self._limit_bytes = cluster_count(frozen.capacity_bytes) * CLUSTER_BYTES
        fits = opening.bytes_planned <= self._limit_bytes
        disk = self._begin(opening, bytes_planned=opening.bytes_planned if fits else 0)
        if disk.sealed_at is not None:
            return disk
        self._disk_id = disk.id
        self._site = context.site
        # Only now: what is wrong from here on fails the job.
        self._check_bytes("bytes_planned", opening.bytes_planned)
        self._progress = self._parts.board.disk(self.job_id, self.disk_index)
        self._progress.bytes_planned = opening.bytes_planned
        identity = LayerIdentity(
            context_id=context.context_id,
            job_id=self.job_id,
            disk_index=self.disk_index,
            vm_name=context.vm_name,
            vmware_disk_key=disk.vmware_disk_key,
            disk_uuid=disk.disk_uuid,
            disk_label=disk.label,
            capacity_bytes=disk.capacity_bytes,
        )
        self._writer = open_repository(context.repository).new_layer(
            identity, layer_base(disk.base) if disk.base is not None else None
        )
        self._change_id = disk.disk_change_id
        with self._changed:
            self._opened = True
            self._changed.notify_all()
        self._parts.board.changed(self.job_id)
        return None

    def _begin(self, opening: pb.UploadOpen, *, bytes_planned: int) -> BackupDisk:
        for attempt in catalog_attempts():
            with attempt, self._parts.catalog.write() as session:
                disk = begin_upload(
                    session,
                    self.job_id,
                    self.disk_index,
                    bytes_planned=bytes_planned,
                    full_instead=opening.full_instead,
                    full_reason=opening.full_reason[:MAX_TEXT_CHARS],
                    method=method_opened(opening),
                    reason=opening.read_reason[:MAX_TEXT_CHARS],
                    sampling=sampling_opened(opening),
                    now=self._parts.now(),
                    repeated=attempt.retry_state.attempt_number > 1,
                )
        return disk

    @retry_catalog
    def _record_seal(self, facts: SealedFacts) -> None:
        assert self._disk_id is not None
        with self._parts.catalog.write() as session:
            seal_disk(session, self._disk_id, facts, self._parts.now())

    @retry_catalog
    def _record_break(self, error: SendenseError) -> None:
        assert self._disk_id is not None
        with self._parts.catalog.write() as session:
            break_disk(session, self._disk_id, error)

    @retry_catalog
    def _cancel_requested(self) -> bool:
        with self._parts.catalog.read() as session:
            return find_job(session, self.job_id).cancel_requested_at is not None

    def _check_bytes(self, field: str, count: int) -> None:
        """The rows hold 63 bits, and a disk's bytes can be added up over a job."""
        if count > self._limit_bytes:
            raise ProtocolViolation(
                f"disk {self.disk_index} of {self.job_id}: {field} is {count}, "
                f"but the disk has {self._limit_bytes} bytes"
            )

    def _has_read(self, bytes_read: int) -> None:
        """The agent has read at least so much."""
        self._progress.bytes_read = max(self._progress.bytes_read, bytes_read)

    def _append(self, writer: LayerWriter, frame: clusters_pb2.ClusterFrame) -> None:
        """A constant number of operations, whatever the frame holds."""
        try:
            batch = from_frame(
                frame, cluster_limit=writer.capacity_clusters, after_cluster=writer.last_cluster
            )
        except FrameCorrupt as error:
            raise FrameDamaged(self.job_id, self.disk_index, str(error)) from error
        except FrameInvalid as error:
            raise FrameRefused(self.job_id, self.disk_index, str(error)) from error
        writer.append(batch, frame.checksum)
        size = batch.payload_bytes
        self._progress.bytes_transferred += size
        self._parts.metrics.bytes_received.inc(size)
        self._clusters += len(batch)
        # The agent reports in intervals, and what it sent it has read.
        arrived = self._clusters * CLUSTER_BYTES
        self._has_read(min(arrived, self._progress.bytes_planned))
        with self._changed:
            self._frames += 1
            # A frame of zero clusters has no payload and is to be acknowledged too.
            self._unsynced_bytes += size + 1
            if self._unsynced_bytes >= SYNC_BYTES:
                self._changed.notify_all()

    def _finish(self, finish: pb.UploadFinish) -> None:
        said = (finish.frame_count, finish.cluster_count, finish.payload_bytes)
        got = (self._frames, self._clusters, self._progress.bytes_transferred)
        if said != got:
            raise UploadTruncated(
                self.job_id,
                self.disk_index,
                f"the agent sent (frames, clusters, bytes) {said}, {got} arrived",
            )
        self._check_bytes("bytes_read", finish.bytes_read)
        self._progress.bytes_read = finish.bytes_read
        if finish.bytes_read != self._progress.bytes_planned:
            raise UploadTruncated(
                self.job_id,
                self.disk_index,
                f"the agent read {finish.bytes_read} of the "
                f"{self._progress.bytes_planned} bytes that it planned",
            )
        with self._writing:
            writer, self._writer = self._writer, None
        assert writer is not None and self._disk_id is not None
        try:
            layer = writer.seal(self._change_id)
            facts = SealedFacts(
                qcow2_path=layer.path,
                root_digest=layer.root_digest.hex(),
                bytes_planned=self._progress.bytes_planned,
                bytes_read=finish.bytes_read,
                bytes_transferred=self._progress.bytes_transferred,
                bytes_stored=layer.bytes_stored,
                bytes_unchanged=finish.bytes_unchanged,
                clusters_missed=finish.clusters_missed,
            )
            self._record_seal(facts)
        except BaseException:
            writer.discard()
            raise
        _log.info(
            "disk_sealed", job_id=self.job_id, disk=self.disk_index, stored=layer.bytes_stored
        )
        # Before the answer: whoever gets it may at once upload or complete.
        self._release()
        with self._changed:
            self._sealed = pb.UploadSealed(
                root_digest=layer.root_digest, bytes_stored=layer.bytes_stored
            )
            self._changed.notify_all()
        self._parts.board.changed(self.job_id)

    def _seal_with(self, disk: BackupDisk) -> None:
        self._release()
        with self._changed:
            self._sealed = pb.UploadSealed(
                root_digest=bytes.fromhex(disk.root_digest or ""), bytes_stored=disk.bytes_stored
            )
            self._changed.notify_all()

    def _fail(self, error: SendenseError | None) -> None:
        """End the upload; `error` None: the connection broke."""
        with self._changed:
            noted, aborted = self._error, self._aborted
        broke = error is None and noted is None
        error = (
            noted
            or error
            or UploadTruncated(self.job_id, self.disk_index, "the connection to the agent broke")
        )
        try:
            with self._writing:
                writer, self._writer = self._writer, None
            if writer is not None:
                self._discard(writer)
            self._release()
            if self._disk_id is not None and not aborted:
                self._fail_disk(error, broke=broke)
        finally:
            # The RPC's thread waits for it, whatever else went wrong.
            self._note(error)

    def _fail_disk(self, error: SendenseError, *, broke: bool) -> None:
        assert self._disk_id is not None
        try:
            if broke and self._cancel_requested():
                # The agent obeys. Its disk did not fail: the job's end cancels it.
                _log.info("upload_cancelled", job_id=self.job_id, disk=self.disk_index)
                return
            _log.warning(
                "upload_failed", job_id=self.job_id, disk=self.disk_index, error=str(error)
            )
            try:
                self._record_break(error)
            except SendenseError as failure:
                # The job's end marks its disks too.
                _log.warning("disk_not_failed", job_id=self.job_id, error=str(failure))
            self._parts.board.changed(self.job_id)
            if broke:
                # The agent may have broken it off for a reason of its own, which
                # it is about to report: that one is worth more than "it broke".
                ask_to_end(self._parts, self._site, self.job_id, event=Event.FAILED, error=error)
            else:
                fail_job(self._parts, self._site, self.job_id, error)
        except Exception:  # noqa: BLE001 - nobody above to report a defect to
            _log.exception("job_not_failed", job_id=self.job_id)
            self._parts.owed.add(self.job_id, Event.FAILED, error)

    def _discard(self, writer: LayerWriter) -> None:
        try:
            writer.discard()
        except SendenseError as error:
            _log.warning("partial_layer_not_removed", job_id=self.job_id, error=str(error))
        except Exception:  # noqa: BLE001 - the job is to fail all the same
            _log.exception("partial_layer_not_removed", job_id=self.job_id)

    def _release(self) -> None:
        self._parts.uploads.leave(self)
        self.released.set()

    def _note(self, error: SendenseError) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
            self._changed.notify_all()
