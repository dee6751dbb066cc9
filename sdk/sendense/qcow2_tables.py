"""L2 tables, L1 table and refcounts of a QCOW2 file, built region by region.

Everything ascends (cluster numbers, and with them places in the file), so what
is held is one region's L2 table, the refcounts of a few GiB of the file, the L1
table (8 bytes a region) and the refcount table (8 bytes a 2 GiB of the file):
about 1 MiB for a disk of 16 TiB.
"""

import os

import numpy as np
import numpy.typing as npt

from sendense.clusters import CLUSTER_BYTES, region_count
from sendense.codec import Array32
from sendense.qcow2_format import (
    CLUSTER_BITS,
    COPIED,
    L2_ENTRIES,
    REFCOUNT_LIMIT,
    REFCOUNTS_PER_BLOCK,
    ZERO_CLUSTER_ENTRY,
    Array64,
    Qcow2Header,
    Qcow2LimitExceeded,
    check_capacity,
    host_clusters,
    l2_entries,
)
from sendense.qcow2_placement import Cursor, PWriteV, write_all


class ImageTables:
    """Builds the L2 tables, refcounts and L1 table of an image, region by region.

    Regions ascend, and every place in a region lies behind those of the regions
    before: blocks of refcounts that no later region can touch are written out.
    One thread. After an error the image is worthless.
    """

    def __init__(
        self,
        fd: int,
        capacity_bytes: int,
        cursor: Cursor,
        *,
        backing_file: str | None,
        backing_format: str = "qcow2",
        pwritev: PWriteV = os.pwritev,
    ) -> None:
        check_capacity(capacity_bytes)
        self._fd = fd
        self._pwritev = pwritev
        self._capacity_bytes = capacity_bytes
        self._cursor = cursor
        self._backing_file = backing_file
        self._backing_format = backing_format
        self._zero_entry = 0 if backing_file is None else ZERO_CLUSTER_ENTRY
        self._l1 = np.zeros(region_count(capacity_bytes), np.uint64)
        self._refcounts = _Refcounts(fd, cursor, pwritev)
        self._refcounts.count_run(0, 1)

    def add_region(self, region: int, within: Array32, offsets: Array64, sizes: Array32) -> None:
        """Write a region's L2 table, unless it would be empty.

        `within` are the clusters' numbers in the region, each once. Raises
        OSError or Qcow2LimitExceeded.
        """
        entries = l2_entries(offsets, sizes, zero_entry=self._zero_entry)
        if not entries.any():
            return
        touched = host_clusters(offsets, sizes)
        if len(touched):
            self._refcounts.settle(int(touched.min()))
            self._refcounts.count(touched)
        table = np.zeros(L2_ENTRIES, ">u8")
        table[within] = entries
        at = self._cursor.allocate(1)
        self._refcounts.count_run(at >> CLUSTER_BITS, 1)
        write_all(self._fd, [table.tobytes()], at, self._pwritev)
        self._l1[region] = at | COPIED

    def finish(self) -> bytes:
        """Write the L1 table and the refcounts; return the header, which the caller writes last."""
        l1_bytes = self._l1.astype(">u8").tobytes()
        l1_clusters = -(-len(l1_bytes) // CLUSTER_BYTES)
        l1_at = self._cursor.allocate(l1_clusters)
        self._refcounts.count_run(l1_at >> CLUSTER_BITS, l1_clusters)
        padded = l1_bytes.ljust(l1_clusters * CLUSTER_BYTES, b"\0")
        write_all(self._fd, [padded], l1_at, self._pwritev)
        table_at, table_clusters = self._refcounts.finish()
        return Qcow2Header(
            self._capacity_bytes,
            l1_at,
            table_at,
            table_clusters,
            self._backing_file,
            self._backing_format,
        ).pack()


class _Refcounts:
    """Refcount blocks: counted in memory, written when nothing can touch them any more."""

    def __init__(self, fd: int, cursor: Cursor, pwritev: PWriteV) -> None:
        self._fd = fd
        self._pwritev = pwritev
        self._cursor = cursor
        self._blocks: dict[int, npt.NDArray[np.int64]] = {}
        self._written: dict[int, int] = {}

    def count(self, host: npt.NDArray[np.int64]) -> None:
        """Add one for each host cluster number given; a number may come several times."""
        start = int(host.min())
        self._add(start, np.bincount(host - start))

    def count_run(self, start: int, clusters: int) -> None:
        """Add one for each of consecutive host clusters."""
        self._add(start, np.ones(clusters, np.int64))

    def settle(self, below: int) -> None:
        """Write the blocks that lie wholly below that host cluster; they are not touched again."""
        for index in sorted(self._blocks):
            if (index + 1) * REFCOUNTS_PER_BLOCK > below:
                break
            at = self._cursor.allocate(1)
            self.count_run(at >> CLUSTER_BITS, 1)
            self._write(index, at)

    def finish(self) -> tuple[int, int]:
        """Write the other blocks and the table. Returns the table's offset and clusters."""
        start = self._cursor.allocate(0) >> CLUSTER_BITS
        blocks, table_clusters = 0, 1
        while True:  # blocks count themselves and the table: grow until all are covered
            end = start + blocks + table_clusters
            covered = -(-end // REFCOUNTS_PER_BLOCK)
            needed = len(set(self._blocks) | set(range(start // REFCOUNTS_PER_BLOCK, covered)))
            needed_table = -(-covered * 8 // CLUSTER_BYTES)
            if (needed, needed_table) == (blocks, table_clusters):
                break
            blocks, table_clusters = needed, needed_table
        self.count_run(start, blocks + table_clusters)
        at = self._cursor.allocate(blocks + table_clusters)
        for index in sorted(self._blocks):
            self._write(index, at)
            at += CLUSTER_BYTES
        table = np.zeros(table_clusters * CLUSTER_BYTES // 8, ">u8")
        for index, block_at in self._written.items():
            table[index] = block_at
        write_all(self._fd, [table.tobytes()], at, self._pwritev)
        return at, table_clusters

    def _add(self, start: int, counts: npt.NDArray[np.int64]) -> None:
        done = 0
        while done < len(counts):
            index, within = divmod(start + done, REFCOUNTS_PER_BLOCK)
            if index in self._written:
                raise AssertionError(f"refcount block {index} is written already")
            block = self._blocks.setdefault(index, np.zeros(REFCOUNTS_PER_BLOCK, np.int64))
            take = min(len(counts) - done, REFCOUNTS_PER_BLOCK - within)
            block[within : within + take] += counts[done : done + take]
            done += take

    def _write(self, index: int, at: int) -> None:
        block = self._blocks.pop(index)
        if int(block.max()) > REFCOUNT_LIMIT:
            raise Qcow2LimitExceeded(
                f"{int(block.max())} clusters share 64 KiB of the image; {REFCOUNT_LIMIT} may"
            )
        write_all(self._fd, [block.astype(">u2").tobytes()], at, self._pwritev)
        self._written[index] = at
