"""What an upload has planned, read and sent so far, and whether its end agrees."""

from hub.errors import ProtocolViolation, UploadTruncated
from hub.jobs.board import DiskProgress
from hub.repository import DurableLayer
from sendense.clusters import CLUSTER_BYTES, cluster_count
from sendense.codec import EncodedClusters
from sendense.v1 import upload_pb2 as pb


class Tally:
    """Counts one upload; of the receiving thread alone. Others may read `progress`.

    The rows hold 63 bits, and a disk's bytes can be added up over a job: no count is
    taken that exceeds the disk in whole clusters.
    """

    def __init__(self, job_id: str, disk_index: int, capacity_bytes: int) -> None:
        self.progress = DiskProgress()
        self.frames = 0
        self._clusters = 0
        self._job_id = job_id
        self._disk_index = disk_index
        self._limit_clusters = cluster_count(capacity_bytes)
        self._limit_bytes = self._limit_clusters * CLUSTER_BYTES

    def fits(self, bytes_planned: int) -> bool:
        """Whether the disk has so many bytes."""
        return bytes_planned <= self._limit_bytes

    def begin(self, bytes_planned: int, progress: DiskProgress) -> None:
        """Count in `progress` from now on. Raises ProtocolViolation."""
        self._check("bytes_planned", bytes_planned, self._limit_bytes)
        self.progress = progress
        self.progress.bytes_planned = bytes_planned

    def go_on(self, durable: DurableLayer) -> None:
        """The layer has this much; whatever else was counted before is counted anew."""
        mine = self.progress
        self.frames = durable.frames
        self._clusters = durable.clusters
        mine.bytes_transferred = durable.payload_bytes
        mine.bytes_read = min(durable.clusters * CLUSTER_BYTES, mine.bytes_planned)

    def advance(self, progress: pb.UploadProgress) -> None:
        """The agent has read so much. Raises ProtocolViolation."""
        self._check("bytes_read", progress.bytes_read, self._limit_bytes)
        mine = self.progress
        mine.bytes_read = max(mine.bytes_read, progress.bytes_read)

    def add(self, batch: EncodedClusters) -> None:
        """A frame has been appended."""
        mine = self.progress
        self.frames += 1
        self._clusters += len(batch)
        mine.bytes_transferred += batch.payload_bytes
        # The agent reports in intervals, and what it sent it has read.
        arrived = min(self._clusters * CLUSTER_BYTES, mine.bytes_planned)
        mine.bytes_read = max(mine.bytes_read, arrived)

    def finish(self, finish: pb.UploadFinish) -> None:
        """The agent says that this was all. Raises UploadTruncated, ProtocolViolation."""
        mine = self.progress
        said = (finish.frame_count, finish.cluster_count, finish.payload_bytes)
        got = (self.frames, self._clusters, mine.bytes_transferred)
        if said != got:
            raise self._truncated(f"the agent sent (frames, clusters, bytes) {said}, {got} arrived")
        self._check("bytes_read", finish.bytes_read, self._limit_bytes)
        self._check("bytes_unchanged", finish.bytes_unchanged, self._limit_bytes)
        self._check("clusters_missed", finish.clusters_missed, self._limit_clusters)
        mine.bytes_read = finish.bytes_read
        if finish.bytes_read != mine.bytes_planned:
            raise self._truncated(
                f"the agent read {finish.bytes_read} of the "
                f"{mine.bytes_planned} bytes that it planned"
            )

    def _check(self, field: str, count: int, limit: int) -> None:
        if count > limit:
            raise ProtocolViolation(
                f"disk {self._disk_index} of {self._job_id}: {field} is {count}, "
                f"more than the disk's {limit}"
            )

    def _truncated(self, problem: str) -> UploadTruncated:
        return UploadTruncated(self._job_id, self._disk_index, problem)
