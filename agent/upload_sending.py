"""The sending half of an upload: the requests of its call, in order."""

import time
from collections.abc import Iterator
from typing import Final

from agent.bounded_queue import QueueEnded
from agent.pipeline import FrameBuilder
from agent.read_plan import ReadPlan
from agent.sent_layer import SentLayer, guest_bytes
from agent.upload_course import UploadCourse
from agent.upload_reading import Encoding, UploadReading
from sendense.codec import EncodedClusters
from sendense.v1 import upload_pb2 as pb
from shared.fail_points import fail_point

PROGRESS_INTERVAL_S: Final = 0.25
# A disk that moved may wait long for the other host's connections: the hub is told that
# the upload goes on. A read that does not come back is ended here (agent/disk_reads.py).
SIGN_OF_LIFE_S: Final = 60.0
ENCODING_S: Final = 300.0


class UploadSending:
    """`requests` runs in gRPC's sending thread, which alone writes the counts."""

    def __init__(
        self,
        job_id: str,
        disk_index: int,
        plan: ReadPlan,
        reading: UploadReading,
        course: UploadCourse,
        layer: SentLayer,
        capacity_bytes: int,
    ) -> None:
        self._job_id = job_id
        self.disk_index = disk_index
        self._plan = plan
        self._reading = reading
        self._course = course
        self.layer = layer
        self._capacity = capacity_bytes
        self._bytes_unchanged = 0

    @property
    def bytes_unchanged(self) -> int:
        """Guest bytes that were read, also by earlier calls, and are those of the base."""
        return self._bytes_unchanged + self._reading.zeros_unchanged_bytes

    def requests(self) -> Iterator[pb.UploadDiskRequest]:
        """Open, frames and progress, finish. What goes wrong ends the course."""
        with self._course.failing():
            self._course.opening()
            yield pb.UploadDiskRequest(open=self._open())
            self._bytes_unchanged = self._course.wait_opened().bytes_unchanged
            builder = FrameBuilder()
            reported_bytes, reported_at = 0, time.monotonic()
            while True:
                try:
                    encoding = self._reading.encoded.get(PROGRESS_INTERVAL_S)
                except QueueEnded:
                    break
                if encoding is not None:
                    for batch in builder.add(self._encoded(encoding)):
                        yield self._frame(batch)
                        fail_point("agent.upload.frame_sent")
                now, bytes_read = time.monotonic(), self._reading.bytes_read
                interval_s = SIGN_OF_LIFE_S if bytes_read == reported_bytes else PROGRESS_INTERVAL_S
                if now - reported_at >= interval_s:
                    reported_bytes, reported_at = bytes_read, now
                    yield pb.UploadDiskRequest(progress=pb.UploadProgress(bytes_read=bytes_read))
            for batch in builder.finish():
                yield self._frame(batch)
                fail_point("agent.upload.frame_sent")
            self._course.finishing()
            fail_point("agent.upload.finishing")
            yield pb.UploadDiskRequest(finish=self._finish())

    def _open(self) -> pb.UploadOpen:
        return pb.UploadOpen(
            job_id=self._job_id,
            disk_index=self.disk_index,
            bytes_planned=self._plan.bytes_planned,
            full_instead=bool(self._plan.full_reason),
            full_reason=self._plan.full_reason,
            read_method=self._plan.method,
            read_reason=self._plan.reason,
            sampling=self._plan.sampling,
            plan_digest=self._plan.digest(self._capacity),
            payload_bytes_sent=self.layer.payload_bytes_sent,
        )

    def _encoded(self, encoding: Encoding) -> EncodedClusters:
        batch = encoding.batch.result(ENCODING_S)
        if encoding.compared:
            last = batch.last_cluster if len(batch) else -1
            self._bytes_unchanged += encoding.area.length - guest_bytes(
                len(batch), last, encoding.area.end
            )
            if self._plan.missed is not None:
                self._plan.missed.compared(batch.numbers)
        return batch

    def _frame(self, batch: EncodedClusters) -> pb.UploadDiskRequest:
        """The batch as a request, once the window has room for it."""
        frame = batch.to_frame()
        self._course.sending(batch.payload_bytes)
        self.layer.sending(batch)
        return pb.UploadDiskRequest(frame=frame)

    def _finish(self) -> pb.UploadFinish:
        sent = self.layer.sent
        self.layer.bytes_read = self._reading.bytes_read
        self.layer.bytes_unchanged = self.bytes_unchanged
        return pb.UploadFinish(
            frame_count=sent.frames,
            cluster_count=sent.clusters,
            payload_bytes=sent.payload_bytes,
            bytes_read=self.layer.bytes_read,
            bytes_unchanged=self.layer.bytes_unchanged,
            clusters_missed=self._plan.missed.count if self._plan.missed is not None else 0,
        )
