"""The reading half of an upload: extents of a plan go to the encoders, in order."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from agent.areas import EXTENT_BYTES, Area, split_extents
from agent.bounded_queue import BoundedQueue
from agent.disk_reads import DiskReads
from agent.pipeline import EncoderPool
from agent.read_plan import Regions
from agent.sent_layer import UploadStart
from sendense.clusters import DIGEST_BYTES, ZERO_DIGEST, cluster_count
from sendense.codec import EncodedClusters

# Extents between the reader and the frames: enough to keep the encoders busy
# while one frame waits for the network, 2 x 2 MiB each at worst.
EXTENTS_IN_FLIGHT: Final = 8
ZERO_EXTENT: Final = bytes(EXTENT_BYTES)
ZERO_EXTENT_DIGESTS: Final = ZERO_DIGEST * cluster_count(EXTENT_BYTES)


@dataclass(frozen=True, slots=True)
class Encoding:
    """An extent that is being encoded; `compared`: what equals its base is left out."""

    area: Area
    batch: Future[EncodedClusters]
    compared: bool


class UploadReading:
    """Reads what a plan says into `encoded`. `run` in a thread of its own; others may look at the counts."""

    def __init__(self, reads: DiskReads, encoders: EncoderPool) -> None:
        self._reads = reads
        self._encoders = encoders
        self.encoded = BoundedQueue[Encoding](EXTENTS_IN_FLIGHT)
        self.bytes_read = 0
        """What need not be read again included."""
        self.zeros_unchanged_bytes = 0
        """Of them: holes that were holes in the base, and went to no encoder."""

    def run(self, start: UploadStart) -> None:
        """Read what is not durable yet.

        Raises what reading and the plan's regions do, QueueClosed when nobody takes any more.
        """
        self.bytes_read = start.bytes_skipped
        base_digests: deque[bytes | None] = deque()
        with closing(start.plan.regions()) as regions:
            for extent in self._reads.read(_areas(regions, base_digests)):
                held = base_digests.popleft()
                area = Area(extent.offset, len(extent.data))
                # Short cut for holes: comparing bytes of equal length runs at memory speed.
                if extent.data == ZERO_EXTENT and held in (None, ZERO_EXTENT_DIGESTS):
                    if held is not None:
                        self.zeros_unchanged_bytes += area.length
                else:
                    batch = self._encoders.submit(area.start, extent.data, base_digests=held)
                    self.encoded.put(Encoding(area, batch, held is not None))
                self.bytes_read += area.length
        self.encoded.end()


def _areas(regions: Regions, base_digests: deque[bytes | None]) -> Iterator[Area]:
    """The extents to read; what the base holds in each is appended, as the reader looks ahead."""
    for region in regions:
        at = 0
        for area in split_extents(region.areas):
            if region.base_digests is None:
                base_digests.append(None)
            else:
                end = at + cluster_count(area.length) * DIGEST_BYTES
                base_digests.append(region.base_digests[at:end])
                at = end
            yield area
