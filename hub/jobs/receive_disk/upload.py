"""The RPC of an upload: one thread receives, the other acknowledges.

`receive` (a thread of its own) takes the parts, appends, seals, and alone
opens and ends the layer writer. `answers` (gRPC's) syncs about every 16 MiB
or second and yields the responses. Nothing is queued between them: a part is appended
before the next is taken.
"""

import threading
from collections.abc import Iterator
from typing import Final

import grpc
import structlog

from hub.catalog.models import BackupDisk, VmBackupContext
from hub.errors import JobEnded, ProtocolViolation, UploadNotReady, UploadTruncated
from hub.jobs.parts import Parts
from hub.jobs.peer_stream import PeerStream, Rpc
from hub.jobs.receive_disk.failure import fail_disk, may_go_on, put_away, remove_left_files
from hub.jobs.receive_disk.layer import append, resume_layer, sealed_facts
from hub.jobs.receive_disk.rows import (
    begin,
    planned_disk,
    record_recovered_seal,
    record_resume,
    record_seal,
)
from hub.jobs.receive_disk.tally import Tally
from hub.jobs.states import Status
from hub.repository import DurableLayer, LayerWriter, SealedLayer
from sendense.codec import EncodedClusters
from sendense.v1 import upload_pb2 as pb
from shared.errors import SendenseError
from shared.fail_points import fail_point

SYNC_BYTES: Final = 16 << 20
SYNC_INTERVAL_S: Final = 1.0
MAX_BYTES: Final = 2**62  # that a row takes
# The first look at a base, or at what there is of the layer, takes a while for a large disk.
OPEN_TIMEOUT_S: Final = 100.0
_log = structlog.get_logger(__name__)


def receive_disk(
    parts: Parts, requests: Iterator[pb.UploadDiskRequest], rpc: Rpc
) -> Iterator[pb.UploadDiskResponse]:
    """Serve one UploadDisk RPC. Raises the error to end it with."""
    upload = _Upload(parts, requests, rpc)
    threading.Thread(target=upload.receive, name="receive-disk", daemon=True).start()
    yield from upload.answers()


class _Upload:
    def __init__(self, parts: Parts, requests: Iterator[pb.UploadDiskRequest], rpc: Rpc) -> None:
        self._parts = parts
        self._stream = PeerStream(requests, rpc, parts.leases)

        # Of the receiving thread.
        self._disk: BackupDisk | None = None  # set while the row is this upload's
        self._site = ""
        self._tally = Tally("", -1, 0)
        self._resumed = False  # the row was an earlier upload's
        self._all_arrived = False  # the agent said finish: to send more would not help

        # Between the threads, under the stream's condition.
        self._opened: pb.UploadOpened | None = None
        self._sealed: pb.UploadSealed | None = None
        self._unsynced_bytes = 0

        # Held while syncing, so that the writer is not sealed or discarded meanwhile.
        self._writing = threading.Lock()
        self._writer: LayerWriter | None = None

    # The RPC's thread.

    def answers(self) -> Iterator[pb.UploadDiskResponse]:
        """Opened, acknowledgements, sealed. Raises the upload's error."""
        stream = self._stream
        with stream.changed:
            stream.changed.wait_for(lambda: self._opened or stream.over(), OPEN_TIMEOUT_S)
            opened = self._opened
            if opened is None and not stream.over():
                stream.note(
                    UploadNotReady(stream.job_id, stream.disk_index, "it was not opened in time")
                )
        if opened is not None:
            yield pb.UploadDiskResponse(opened=opened)
        while True:
            with stream.changed:
                stream.changed.wait_for(self._due, SYNC_INTERVAL_S)
                error, sealed = stream.error, self._sealed
            if sealed is not None:
                yield pb.UploadDiskResponse(sealed=sealed)
                return
            if error is not None:
                raise error
            if stream.rpc_ended.is_set():
                # Nobody hears more; the receiving thread deals with what was sent.
                return
            if self._all_arrived:
                stream.at_work()  # a seal takes its time, and no parts arrive meanwhile
            ack = self._sync()
            if ack is not None:
                yield pb.UploadDiskResponse(ack=ack)
                fail_point("hub.upload.acknowledged")

    def _due(self) -> bool:
        return self._stream.over() or self._unsynced_bytes >= SYNC_BYTES

    def _sync(self) -> pb.UploadAck | None:
        with self._writing:
            if self._writer is None or not self._unsynced_bytes:
                return None
            with self._stream.changed:
                self._unsynced_bytes = 0
            try:
                point = self._writer.sync()
            except SendenseError as error:
                self._stream.note(error)
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
            self._fail(self._truncated("the connection to the agent broke"))
        except Exception:  # noqa: BLE001 - nobody above to report a defect to
            stream = self._stream
            _log.exception(
                "upload_failed_unexpectedly", job_id=stream.job_id, disk=stream.disk_index
            )
            self._fail(SendenseError())
        finally:
            self._release()

    def _receive(self) -> None:
        stream = self._stream
        first = stream.next()
        if first is None or first.WhichOneof("part") != "open":
            raise ProtocolViolation("an upload begins with open")
        disk, context = self._open(first.open)
        if disk.sealed_at is not None:
            self._answer_sealed(bytes.fromhex(disk.root_digest or ""), disk.bytes_stored)
            return
        writer = self._begin_layer(disk, context, first.open)
        if writer is None:
            return
        while (part := stream.next()) is not None:
            if stream.error is not None:
                raise stream.error
            kind = part.WhichOneof("part")
            if kind == "frame":
                self._appended(append(writer, disk, part.frame))
            elif kind == "progress":
                self._tally.advance(part.progress)
            elif kind == "finish":
                self._all_arrived = True
                self._tally.finish(part.finish)
                fail_point("hub.upload.finished")
                self._seal(disk, part.finish)
                return
            else:
                raise ProtocolViolation(f"{kind} has no place in an opened upload")
        # Those of a broken connection may end like this as well.
        raise stream.error or self._truncated("it ended without finish")

    def _open(self, opening: pb.UploadOpen) -> tuple[BackupDisk, VmBackupContext]:
        """Claim the disk; a sealed one is returned as it is."""
        job_id, disk_index = opening.job_id, opening.disk_index
        self._stream.job_id, self._stream.disk_index = job_id, disk_index
        self._stream.at_work()
        self._parts.uploads.enter(self._stream)
        if self._stream.error is not None:
            raise self._stream.error
        self._parts.recovery.require_looked_at(job_id)
        planned = planned_disk(self._parts, job_id, disk_index)
        context = planned.job.context
        # Nobody else has the disk: a row that is taken was so by an upload that broke off.
        self._resumed = planned.status is Status.RUNNING
        self._tally = Tally(job_id, disk_index, planned.capacity_bytes)
        fits = self._tally.fits(opening.bytes_planned)
        disk = begin(self._parts, opening, bytes_planned=opening.bytes_planned if fits else 0)
        if disk.sealed_at is None:
            self._disk, self._site = disk, context.site
            fail_point("hub.upload.begun")
            # Only now: what is wrong from here on fails the job.
            self._tally.begin(opening.bytes_planned, self._parts.board.disk(job_id, disk_index))
        return disk, context

    def _begin_layer(
        self, disk: BackupDisk, context: VmBackupContext, opening: pb.UploadOpen
    ) -> LayerWriter | None:
        """Tell the agent where to go on; None when the layer is found sealed, and told so."""
        found = resume_layer(context, disk, opening.plan_digest)
        if found.sealed is not None:
            assert found.totals is not None
            record_recovered_seal(self._parts, disk, found.sealed, found.totals)
            self._is_sealed(disk, found.sealed)
            return None
        writer = self._writer = found.writer
        assert writer is not None
        durable = writer.durable
        if self._resumed:
            self._count_resume(disk, durable, opening)
        self._tally.go_on(durable)
        with self._stream.changed:
            self._opened = pb.UploadOpened(
                durable_frames=durable.frames,
                durable_through_cluster=max(durable.last_cluster, 0),
                durable_clusters=durable.clusters,
                durable_payload_bytes=durable.payload_bytes,
            )
            self._stream.changed.notify_all()
        self._parts.board.changed(disk.backup_job_id)
        return writer

    def _count_resume(
        self, disk: BackupDisk, durable: DurableLayer, opening: pb.UploadOpen
    ) -> None:
        """What arrived and is not durable is sent again; the agent knows of what did not arrive.

        It counts over all its calls, so that its sum is one of all that was sent again.
        """
        lost = max(0, self._tally.progress.bytes_transferred - durable.payload_bytes)
        sent = min(opening.payload_bytes_sent, MAX_BYTES)
        in_all = max(disk.bytes_resent + lost, sent - durable.payload_bytes)
        record_resume(self._parts, disk, in_all)
        self._parts.metrics.uploads_resumed.inc()
        self._parts.metrics.bytes_resent.inc(in_all - disk.bytes_resent)
        _log.info(
            "upload_resumed",
            job_id=disk.backup_job_id,
            disk=disk.disk_index,
            durable_frames=durable.frames,
            resent=in_all - disk.bytes_resent,
        )

    def _appended(self, batch: EncodedClusters) -> None:
        self._tally.add(batch)
        self._parts.vain_runs.brought_on(self._stream.job_id)
        self._parts.metrics.bytes_received.inc(batch.payload_bytes)
        with self._stream.changed:
            # A frame of zero clusters has no payload and is to be acknowledged too.
            self._unsynced_bytes += batch.payload_bytes + 1
            if self._unsynced_bytes >= SYNC_BYTES:
                self._stream.changed.notify_all()

    def _seal(self, disk: BackupDisk, finish: pb.UploadFinish) -> None:
        with self._writing:
            writer, self._writer = self._writer, None
        assert writer is not None
        try:
            layer = writer.seal(disk.disk_change_id)
        except BaseException:
            writer.discard()
            raise
        # Should the row not say it, the next call finds the layer sealed.
        record_seal(self._parts, disk.id, sealed_facts(layer, self._tally.progress, finish))
        fail_point("hub.upload.seal_recorded")
        self._is_sealed(disk, layer)

    def _is_sealed(self, disk: BackupDisk, layer: SealedLayer) -> None:
        job_id, disk_index = disk.backup_job_id, disk.disk_index
        _log.info("disk_sealed", job_id=job_id, disk=disk_index, stored=layer.bytes_stored)
        self._parts.vain_runs.brought_on(job_id)
        self._parts.uploads.finish_readers(job_id, disk_index)
        self._answer_sealed(layer.root_digest, layer.bytes_stored)
        self._parts.board.changed(job_id)

    def _answer_sealed(self, root_digest: bytes, bytes_stored: int) -> None:
        # Before the answer: whoever gets it may at once upload or complete.
        self._release()
        with self._stream.changed:
            self._sealed = pb.UploadSealed(root_digest=root_digest, bytes_stored=bytes_stored)
            self._stream.finish()

    def _truncated(self, problem: str) -> UploadTruncated:
        return UploadTruncated(self._stream.job_id, self._stream.disk_index, problem)

    def _fail(self, error: SendenseError) -> None:
        """End the upload; what is durable stays where another call may go on behind it."""
        stream = self._stream
        with stream.changed:
            aborted = stream.aborted
            error = stream.error or error
        keep = may_go_on(error)
        if isinstance(error, UploadTruncated) and self._all_arrived:
            keep = False
        try:
            with self._writing:
                writer, self._writer = self._writer, None
            if writer is not None:
                put_away(writer, stream.job_id, keep=keep)
            self._release()
            if isinstance(error, JobEnded):
                # While this upload had the disk, the files of the job were not removed.
                remove_left_files(self._parts)
            elif keep:
                _log.info("upload_broke_off", **error.facts(), reason=error.code)
            elif self._disk is not None and not aborted:
                fail_disk(self._parts, self._site, self._disk, error)
        finally:
            # The RPC's thread waits for it, whatever else went wrong.
            stream.note(error)

    def _release(self) -> None:
        self._parts.uploads.leave(self._stream)
        self._stream.released.set()
