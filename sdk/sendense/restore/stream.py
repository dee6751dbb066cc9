"""The restore stream, checked: header, clusters in order, trailer, and the root of it all."""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from sendense import codec
from sendense.channel import open_channel
from sendense.clusters import DIGEST_BYTES, REGION_DIGEST_BYTES, cluster_count
from sendense.codec import EncodedClusters
from sendense.digests import DiskDigests
from sendense.errors import DataLoss
from sendense.requests import build
from sendense.restore.progress import RestoreProgress
from sendense.restore.stall import StallGuard
from sendense.v1 import clusters_pb2, restore_pb2, restore_pb2_grpc

# Cluster numbers are 32-bit on the wire.
MAX_CLUSTERS: Final = 1 << 32


class RestoreStream:
    """One disk's stream; one thread reads it. Raises DataLoss wherever it breaks the contract."""

    def __init__(
        self, responses: Iterator[restore_pb2.RestoreDiskResponse], job_id: str, disk_index: int
    ) -> None:
        self._responses = responses
        self._name = f"disk {disk_index} of job {job_id}"
        self.header = self._read_header(job_id, disk_index)
        self._digests = DiskDigests(self.header.capacity_bytes)
        self._trailer: restore_pb2.RestoreTrailer | None = None
        self.cluster_count = 0
        self.payload_bytes = 0

    def batches(self) -> Iterator[EncodedClusters]:
        """Every batch, checked for its checksum, order and range, but not yet decoded."""
        limit = cluster_count(self.header.capacity_bytes)
        last = -1
        for response in self._responses:
            part = response.WhichOneof("part")
            if part == "trailer":
                self._check_trailer(response.trailer)
                self._trailer = response.trailer
                return
            if part != "frame":
                raise self._damaged(
                    "STREAM_INVALID", f"sends {part or 'nothing known'} after its header"
                )
            batch = self._read_frame(response.frame, limit, last)
            last = batch.last_cluster
            self._count(batch)
            yield batch
        raise self._damaged(
            "STREAM_TRUNCATED", f"ends after {self.cluster_count} clusters without a trailer"
        )

    def check_root(self) -> str:
        """The root digest of everything received, in hex, once it is found to be the backup's.

        That of an imported restore point is compared with what the hub read.
        Raises DataLoss.
        """
        if self._trailer is None:
            raise self._damaged("STREAM_TRUNCATED", "was not read to its end")
        root = self._digests.finish()[1]
        expected = self.header.root_digest or self._trailer.root_digest
        if root != expected:
            by = "the backup had" if self.header.root_digest else "the hub read"
            raise self._damaged(
                "ROOT_DIGEST_MISMATCH", f"adds up to digest {root.hex()}, {by} {expected.hex()}"
            )
        return root.hex()

    def progress(self) -> RestoreProgress:
        """How far this stream has been read."""
        header = self.header
        return RestoreProgress(
            job_id=header.job_id,
            disk_index=header.disk_index,
            disk_label=header.disk_label,
            clusters_done=self.cluster_count,
            cluster_count=header.cluster_count,
            payload_done_bytes=self.payload_bytes,
            payload_bytes=header.payload_bytes,
            total_known=header.cluster_count > 0 or not header.imported,
        )

    def _read_header(self, job_id: str, disk_index: int) -> restore_pb2.RestoreHeader:
        first = next(self._responses, None)
        if first is None or first.WhichOneof("part") != "header":
            raise self._damaged("STREAM_INVALID", "does not begin with a header")
        header = first.header
        if (header.job_id, header.disk_index) != (job_id, disk_index):
            raise self._damaged(
                "STREAM_INVALID", f"is one of disk {header.disk_index} of job {header.job_id}"
            )
        clusters = cluster_count(header.capacity_bytes)
        if not 0 < clusters <= MAX_CLUSTERS or header.cluster_count > clusters:
            raise self._damaged(
                "STREAM_INVALID",
                f"announces {header.cluster_count} clusters in {header.capacity_bytes} bytes",
            )
        # The layers of an imported restore point have no digests: the trailer brings the root.
        follows = header.imported and not header.root_digest
        if not follows and len(header.root_digest) != REGION_DIGEST_BYTES:
            raise self._damaged("STREAM_INVALID", "has no root digest")
        return header

    def _read_frame(
        self, frame: clusters_pb2.ClusterFrame, limit: int, last: int
    ) -> EncodedClusters:
        try:
            return codec.from_frame(frame, cluster_limit=limit, after_cluster=last)
        except codec.FrameCorrupt as error:
            raise self._damaged("FRAME_CORRUPT", str(error)) from error
        except codec.FrameInvalid as error:
            raise self._damaged("FRAME_INVALID", str(error)) from error

    def _count(self, batch: EncodedClusters) -> None:
        digests = batch.digests
        for at, number in enumerate(batch.numbers.tolist()):
            self._digests.add(number, digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES])
        self.cluster_count += len(batch)
        self.payload_bytes += batch.payload_bytes
        clusters, payload = self._announced()
        if self.cluster_count > clusters or self.payload_bytes > payload:
            raise self._damaged("COUNT_MISMATCH", "sends more than its header announced")

    def _announced(self) -> tuple[float, float]:
        """Clusters and payload bytes the header promises; infinite where it cannot know them."""
        header = self.header
        if not header.imported:
            return header.cluster_count, header.payload_bytes
        return header.cluster_count or math.inf, header.payload_bytes or math.inf

    def _check_trailer(self, trailer: restore_pb2.RestoreTrailer) -> None:
        received = (self.cluster_count, self.payload_bytes)
        matches = [
            announced in (math.inf, brought)
            for announced, brought in zip(self._announced(), received, strict=True)
        ]
        if not all(matches) or received != (trailer.cluster_count, trailer.payload_bytes):
            raise self._damaged(
                "COUNT_MISMATCH",
                f"brought {received[0]} clusters and {received[1]} bytes, its header announced "
                f"{self.header.cluster_count} and {self.header.payload_bytes}, its trailer counts "
                f"{trailer.cluster_count} and {trailer.payload_bytes}",
            )
        header_root, root = self.header.root_digest, trailer.root_digest
        if not header_root and len(root) != REGION_DIGEST_BYTES:
            raise self._damaged("STREAM_INVALID", "has no root digest in its trailer")
        if header_root and root not in (b"", header_root):
            raise self._damaged("STREAM_INVALID", "has two root digests that differ")
        if next(self._responses, None) is not None:
            raise self._damaged("STREAM_INVALID", "goes on after its trailer")

    def _damaged(self, reason: str, what: str) -> DataLoss:
        return DataLoss(f"the stream of {self._name} {what}", reason=reason)


@contextmanager
def open_restore(address: str, job_id: str, disk_index: int) -> Iterator[RestoreStream]:
    """Ask for a disk; call and connection are over when the context is, whatever happened."""
    # A channel of its own: bulk data does not share flow control with requests.
    channel = open_channel(address, dedicated=True)
    interrupted = True
    try:
        stub = restore_pb2_grpc.RestoreServiceStub(channel)
        request = build(restore_pb2.RestoreDiskRequest, job_id=job_id, disk_index=disk_index)
        call = stub.RestoreDisk(request)
        with StallGuard(call, address) as guard:
            yield RestoreStream(guard.responses(), job_id, disk_index)
        interrupted = False
    except Exception:
        interrupted = False
        raise
    finally:
        channel.close()
        if not interrupted:
            # gRPC frees the connection only when the end of the call was read. Closing the
            # channel ended the call, so this is over at once; `call.cancel()` would hide the
            # end. After Ctrl-C in the middle of a read the call cannot be read any more.
            with suppress(Exception):
                deque(call, maxlen=0)
