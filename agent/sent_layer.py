"""One disk's layer as the agent knows it: what was sent of it, what is durable; over all calls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import structlog

from agent.cluster_sets import ClusterSet
from agent.errors import HubMisbehaved
from agent.read_plan import ReadPlan
from sendense.clusters import CLUSTER_BYTES
from sendense.codec import EncodedClusters
from sendense.v1 import upload_pb2 as pb

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LayerPoint:
    """A layer up to the end of one of its frames."""

    frames: int = 0
    clusters: int = 0
    payload_bytes: int = 0
    last_cluster: int = -1

    @classmethod
    def durable(cls, opened: pb.UploadOpened) -> Self:
        """What the hub has."""
        if not opened.durable_frames:
            return cls()
        return cls(
            opened.durable_frames,
            opened.durable_clusters,
            opened.durable_payload_bytes,
            opened.durable_through_cluster,
        )

    def behind(self, frame: EncodedClusters) -> "LayerPoint":
        """The end of the next frame."""
        return LayerPoint(
            self.frames + 1,
            self.clusters + len(frame),
            self.payload_bytes + frame.payload_bytes,
            frame.last_cluster,
        )

    def is_within(self, other: "LayerPoint") -> bool:
        return (
            self.frames <= other.frames
            and self.clusters <= other.clusters
            and self.payload_bytes <= other.payload_bytes
            and self.last_cluster <= other.last_cluster
        )


@dataclass(frozen=True, slots=True)
class UploadStart:
    """Where a call begins: what is durable, and the counts that it stands for."""

    durable: LayerPoint
    plan: ReadPlan
    """What is left of it."""
    bytes_skipped: int
    bytes_unchanged: int
    """Of them: those that equal the base, and are in no frame."""


class SentLayer:
    """What the calls of one disk did, one call after the other.

    Threads: within a call, `open` comes first; then its sending thread alone calls
    `sending` and writes the counts, its answers' thread alone calls `durable_through`.
    `progressed` is called when more became durable, or was read, than ever before,
    `served` when the hub took an upload; they must not block.
    """

    def __init__(
        self,
        job_id: str,
        disk: str,
        *,
        progressed: Callable[[], None] = lambda: None,
        served: Callable[[], None] = lambda: None,
    ) -> None:
        self._job_id = job_id
        self._disk = disk
        self._progressed = progressed
        self._served = served
        self._opened = False
        self._furthest = -1
        self._furthest_read = 0
        self.must_be_sealed: Exception | None = None
        """Raised when an upload is opened that should have been answered with the seal."""
        self.sent = LayerPoint()
        """As the hub may have it: behind what was durable when the last call began."""
        self.payload_bytes_sent = 0
        """By all calls, what was sent twice included."""
        self.resumes = 0
        self.bytes_resent = 0
        # Of the whole disk, once all of it was sent.
        self.bytes_read = 0
        self.bytes_unchanged = 0

    def open(self, opened: pb.UploadOpened, plan: ReadPlan, capacity_bytes: int) -> UploadStart:
        """A call begins behind what is durable. Raises HubMisbehaved when that cannot be."""
        if self.must_be_sealed is not None:
            raise self.must_be_sealed
        durable = LayerPoint.durable(opened)
        start = _start(durable, plan, capacity_bytes)
        # An earlier run of the agent may have sent what this one did not; later, all is known.
        if start is None or (self._opened and not durable.is_within(self.sent)):
            raise HubMisbehaved(
                f"it has {durable.frames} frames with {durable.clusters} clusters through "
                f"{durable.last_cluster} of {self._disk}, which nobody sent"
            )
        if self._opened or durable.frames:
            self._resumed(durable)
        self._opened = True
        self.sent = durable
        self.durable_through(durable.last_cluster)
        self._served()
        return start

    def sending(self, frame: EncodedClusters) -> None:
        """The next frame goes out."""
        self.sent = self.sent.behind(frame)
        self.payload_bytes_sent += frame.payload_bytes

    def durable_through(self, cluster: int) -> None:
        """The hub has all up to this cluster."""
        # A layer that begins anew is no progress until it is longer than it ever was.
        if cluster > self._furthest:
            self._furthest = cluster
            self._progressed()

    def read_up_to(self, bytes_read: int) -> None:
        """A call has ended; what it read may have held nothing that had to be sent."""
        if bytes_read > self._furthest_read:
            self._furthest_read = bytes_read
            self._progressed()

    def _resumed(self, durable: LayerPoint) -> None:
        resent = self.sent.payload_bytes - durable.payload_bytes if self._opened else 0
        self.resumes += 1
        self.bytes_resent += resent
        _log.info(
            "disk_upload_resumed",
            job_id=self._job_id,
            disk=self._disk,
            durable_through=durable.last_cluster if durable.frames else None,
            bytes_resent=resent,
        )


def guest_bytes(clusters: int, last_cluster: int, end: int) -> int:
    """Bytes of so many clusters before byte `end`, which may lie in the last one."""
    if not clusters:
        return 0
    return clusters * CLUSTER_BYTES - max(0, (last_cluster + 1) * CLUSTER_BYTES - end)


def _start(durable: LayerPoint, plan: ReadPlan, capacity_bytes: int) -> UploadStart | None:
    """None when such a layer is none of this plan."""
    if not durable.frames:
        return UploadStart(durable, plan, 0, 0)
    if durable.frames > durable.clusters:
        return None
    if not ClusterSet(plan.areas).contains(np.array([durable.last_cluster], np.int64)).all():
        return None
    left = plan.behind(durable.last_cluster)
    skipped = plan.bytes_planned - left.bytes_planned
    in_frames = guest_bytes(durable.clusters, durable.last_cluster, capacity_bytes)
    if in_frames > skipped:
        return None
    return UploadStart(durable, left, skipped, skipped - in_frames if plan.base is not None else 0)
