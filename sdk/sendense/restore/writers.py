"""The two shapes of a restored disk: a sparse raw file, a compressed QCOW2 file."""

from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from sendense.clusters import CLUSTER_BYTES, ZERO_CLUSTER
from sendense.codec import EncodedClusters
from sendense.qcow2 import Qcow2Writer
from sendense.restore.target import Target

# Clusters gathered into one write. 512 KiB stay in a core's cache between being decoded and
# being written, and in the allocator's hands afterwards: 2 MiB took twice the time.
WRITE_CLUSTERS: Final = 8


class DiskWriter(Protocol):
    """Writes a disk. `append` gets every batch in order, before its clusters are decoded."""

    def append(self, batch: EncodedClusters) -> None: ...

    def write_decoded(self, clusters: Iterator[tuple[int, bytes]]) -> None:
        """Take the checked clusters of one batch; called by several threads at once."""

    def finish(self) -> None:
        """Everything was appended, decoded and found good."""


class RawDiskWriter:
    """Writes decoded clusters at their places; what is not written is a hole."""

    def __init__(self, target: Target, capacity_bytes: int) -> None:
        self._target = target
        self._capacity = capacity_bytes
        target.resize(capacity_bytes)

    def append(self, batch: EncodedClusters) -> None:
        """Nothing: raw files hold decoded clusters."""

    def write_decoded(self, clusters: Iterator[tuple[int, bytes]]) -> None:
        run: list[bytes] = []
        first = 0
        for number, cluster in clusters:
            if run and (number != first + len(run) or len(run) == WRITE_CLUSTERS):
                self._write(first, run)
                run = []
            if cluster is ZERO_CLUSTER:
                continue
            if not run:
                first = number
            run.append(cluster)
        if run:
            self._write(first, run)

    def finish(self) -> None:
        """Nothing is left to do: the size was set first."""

    def _write(self, first_cluster: int, run: list[bytes]) -> None:
        offset = first_cluster * CLUSTER_BYTES
        beyond = offset + len(run) * CLUSTER_BYTES - self._capacity
        if beyond > 0:  # the disk's last cluster is padded on the wire
            run[-1] = run[-1][: CLUSTER_BYTES - beyond]
        self._target.write(offset, run)


class Qcow2DiskWriter:
    """Stores the clusters as they came; decoding only proves that they are good."""

    def __init__(self, target: Target, capacity_bytes: int) -> None:
        self._target = target
        with target.write_errors():
            self._writer = Qcow2Writer(target.fd, capacity_bytes)

    def append(self, batch: EncodedClusters) -> None:
        with self._target.write_errors():
            self._writer.append(batch)
        self._target.written(batch.payload_bytes)

    def write_decoded(self, clusters: Iterator[tuple[int, bytes]]) -> None:
        deque(clusters, maxlen=0)

    def finish(self) -> None:
        with self._target.write_errors():
            self._writer.finish()
