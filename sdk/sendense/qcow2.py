"""Writes a QCOW2 image from stored clusters as they come, in bounded memory (docs/formats.md, Layer)."""

from typing import Final

import numpy as np

from sendense.clusters import REGION_CLUSTERS, cluster_count
from sendense.codec import EncodedClusters, check_batch
from sendense.qcow2_placement import Cursor, write_all, write_placed
from sendense.qcow2_tables import ImageTables

_ABSENT: Final = np.uint32(0xFFFFFFFF)


class Qcow2Writer:
    """Writes an image from batches of stored clusters in ascending order.

    An L2 table is written as soon as its region is complete. The file
    descriptor must be of an empty, seekable file; syncing and closing it are the
    caller's. One thread. After an error the file is worthless.
    """

    def __init__(
        self,
        fd: int,
        capacity_bytes: int,
        backing_file: str | None = None,
        backing_format: str = "qcow2",
    ) -> None:
        """Raises CapacityInvalid."""
        self._fd = fd
        self._cursor = Cursor()
        self._tables = ImageTables(
            fd,
            capacity_bytes,
            self._cursor,
            backing_file=backing_file,
            backing_format=backing_format,
        )
        self._limit = cluster_count(capacity_bytes)
        self._region = -1
        self._last_cluster = -1
        self._offsets = np.zeros(REGION_CLUSTERS, np.uint64)
        self._sizes = np.full(REGION_CLUSTERS, _ABSENT, np.uint32)

    def append(self, batch: EncodedClusters) -> None:
        """Write a batch's bytes. Raises FrameInvalid, OSError or Qcow2LimitExceeded."""
        check_batch(batch, cluster_limit=self._limit, after_cluster=self._last_cluster)
        if batch.region != self._region:
            self._close_region()
            self._region = batch.region
        placement = self._cursor.place(batch)
        write_placed(self._fd, batch, placement)
        within = batch.numbers % REGION_CLUSTERS
        self._offsets[within] = placement.offsets(batch.sizes)
        self._sizes[within] = batch.sizes
        self._last_cluster = batch.last_cluster

    def finish(self) -> None:
        """Write the tables, then the header. Raises OSError or Qcow2LimitExceeded."""
        self._close_region()
        header = self._tables.finish()
        write_all(self._fd, [header], 0)

    def _close_region(self) -> None:
        if self._region < 0:
            return
        within = np.flatnonzero(self._sizes != _ABSENT).astype(np.uint32)
        self._tables.add_region(self._region, within, self._offsets[within], self._sizes[within])
        self._sizes.fill(_ABSENT)
