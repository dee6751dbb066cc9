"""Upload of one disk: read, encode, send, wait until the hub has sealed it.

Threads of one upload, each owning what it writes:

- the caller watches the hub's deadlines and ends the others;
- `read` waits for the upload to be opened, then pulls extents from the reader and hands them to the encoder pool;
- gRPC's sender takes encoded batches in order and makes the requests;
- `answers` takes the hub's acknowledgements.

They share the course. The first error of any of them, or a cancellation, is what
the caller gets; it closes the queue, the reader, the questions about the base and
the call, which unblocks the rest.
"""

import threading
from dataclasses import dataclass
from typing import Final

import grpc
import structlog

from agent.cancellation import Cancellation
from agent.disk_reads import DiskReads
from agent.patience import Patience
from agent.pipeline import EncoderPool
from agent.read_plan import ReadPlan
from agent.sent_layer import SentLayer
from agent.upload_course import UploadCourse
from agent.upload_reading import UploadReading
from agent.upload_sending import UploadSending
from sendense.v1 import upload_pb2 as pb
from sendense.v1.upload_pb2_grpc import UploadServiceStub

JOIN_S: Final = 30.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UploadResult:
    """A sealed disk: what was read, sent and stored, in bytes; of all calls together."""

    root_digest: bytes
    bytes_stored: int
    bytes_read: int
    bytes_unchanged: int
    payload_bytes: int
    cluster_count: int
    frame_count: int
    resumes: int
    bytes_resent: int


def upload_disk(
    channel: grpc.Channel,
    reads: DiskReads,
    plan: ReadPlan,
    *,
    job_id: str,
    disk_index: int,
    encoders: EncoderPool,
    cancellation: Cancellation | None = None,
    patience: Patience | None = None,
    layer: SentLayer | None = None,
) -> UploadResult:
    """Read and send what the plan says and return once the hub has sealed the layer.

    `channel` should carry nothing else. `layer` is what earlier calls for this disk
    filled: with the same plan, the upload goes on behind what is durable.

    Raises HubRefused, HubUnreachable, HubMisbehaved, UploadStalled, what reading and
    the plan raise, and the error of `cancellation`. After an error the reader and the
    plan's base are closed and no thread is left.
    """
    layer = layer or SentLayer(job_id, f"disk {disk_index}")
    capacity_bytes = reads.capacity_bytes
    course = UploadCourse(disk_index, patience or Patience(), layer, plan, capacity_bytes)
    reading = UploadReading(reads, encoders)
    sending = UploadSending(job_id, disk_index, plan, reading, course, layer, capacity_bytes)
    with (cancellation or Cancellation()).calling(course.fail):
        sealed = _upload(UploadServiceStub(channel), reads, plan, course, reading, sending)
    return UploadResult(
        root_digest=sealed.root_digest,
        bytes_stored=sealed.bytes_stored,
        bytes_read=layer.bytes_read,
        bytes_unchanged=layer.bytes_unchanged,
        payload_bytes=layer.sent.payload_bytes,
        cluster_count=layer.sent.clusters,
        frame_count=layer.sent.frames,
        resumes=layer.resumes,
        bytes_resent=layer.bytes_resent,
    )


def _upload(
    stub: UploadServiceStub,
    reads: DiskReads,
    plan: ReadPlan,
    course: UploadCourse,
    reading: UploadReading,
    sending: UploadSending,
) -> pb.UploadSealed:
    def read() -> None:
        with course.failing():
            reading.run(course.wait_opened())

    call = stub.UploadDisk(sending.requests())
    name = f"disk-{sending.disk_index}"
    reader = threading.Thread(target=read, name=f"read-{name}", daemon=True)
    answers = threading.Thread(
        target=course.take_answers, args=(call,), name=f"answers-{name}", daemon=True
    )
    reader.start()
    answers.start()
    try:
        return course.wait_end()
    except BaseException as error:
        course.fail(error)
        raise
    finally:
        reading.encoded.close()
        if plan.base is not None:
            plan.base.close()
        if reader.is_alive():
            reads.close()
        call.cancel()
        for thread in (reader, answers):
            thread.join(JOIN_S)
            if thread.is_alive():
                _log.error("upload_thread_does_not_end", thread=thread.name)
        sending.layer.read_up_to(reading.bytes_read)
