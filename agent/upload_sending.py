"""The sending half of an upload: the requests of its call, in order."""

import time
from collections.abc import Iterator
from typing import Final

from agent.bounded_queue import QueueEnded
from agent.pipeline import FrameBuilder
from agent.read_plan import ReadPlan
from agent.upload_course import UploadCourse
from agent.upload_reading import Encoding, UploadReading
from sendense.clusters import CLUSTER_BYTES
from sendense.codec import EncodedClusters
from sendense.v1 import upload_pb2 as pb

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
    ) -> None:
        self._job_id = job_id
        self._disk_index = disk_index
        self._plan = plan
        self._reading = reading
        self._course = course
        self.cluster_count = 0
        self.payload_bytes = 0
        self._bytes_unchanged = 0

    @property
    def bytes_unchanged(self) -> int:
        """Guest bytes that were read and are those of the base."""
        return self._bytes_unchanged + self._reading.zeros_unchanged_bytes

    def requests(self) -> Iterator[pb.UploadDiskRequest]:
        """Open, frames and progress, finish. What goes wrong ends the course."""
        with self._course.failing():
            self._course.opening()
            yield pb.UploadDiskRequest(open=self._open())
            self._course.wait_opened()
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
                now, bytes_read = time.monotonic(), self._reading.bytes_read
                interval_s = SIGN_OF_LIFE_S if bytes_read == reported_bytes else PROGRESS_INTERVAL_S
                if now - reported_at >= interval_s:
                    reported_bytes, reported_at = bytes_read, now
                    yield pb.UploadDiskRequest(progress=pb.UploadProgress(bytes_read=bytes_read))
            for batch in builder.finish():
                yield self._frame(batch)
            self._course.finishing()
            yield pb.UploadDiskRequest(finish=self._finish())

    def _open(self) -> pb.UploadOpen:
        return pb.UploadOpen(
            job_id=self._job_id,
            disk_index=self._disk_index,
            bytes_planned=self._plan.bytes_planned,
            full_instead=bool(self._plan.full_reason),
            full_reason=self._plan.full_reason,
            read_method=self._plan.method,
            read_reason=self._plan.reason,
            sampling=self._plan.sampling,
        )

    def _encoded(self, encoding: Encoding) -> EncodedClusters:
        batch = encoding.batch.result(ENCODING_S)
        if encoding.compared:
            self._bytes_unchanged += encoding.area.length - _guest_bytes(batch, encoding.area.end)
            if self._plan.missed is not None:
                self._plan.missed.compared(batch.numbers)
        return batch

    def _frame(self, batch: EncodedClusters) -> pb.UploadDiskRequest:
        """The batch as a request, once the window has room for it."""
        frame = batch.to_frame()
        self._course.sending(batch.payload_bytes)
        self.cluster_count += len(batch)
        self.payload_bytes += batch.payload_bytes
        return pb.UploadDiskRequest(frame=frame)

    def _finish(self) -> pb.UploadFinish:
        return pb.UploadFinish(
            frame_count=self._course.sent_frames,
            cluster_count=self.cluster_count,
            payload_bytes=self.payload_bytes,
            bytes_read=self._reading.bytes_read,
            bytes_unchanged=self.bytes_unchanged,
            clusters_missed=self._plan.missed.count if self._plan.missed is not None else 0,
        )


def _guest_bytes(batch: EncodedClusters, end: int) -> int:
    """Bytes of the batch's clusters before byte `end`, which may lie in the last one."""
    if not len(batch):
        return 0
    beyond = max(0, (batch.last_cluster + 1) * CLUSTER_BYTES - end)
    return len(batch) * CLUSTER_BYTES - beyond
