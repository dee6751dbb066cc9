"""Reads a finished layer's QCOW2 structures back and compares them with its journal.

Shares no code with the writer of the tables: it decodes what stands in the file
and asks whether a QCOW2 reader would find each cluster where the journal says.
Places ascend with regions, so refcounts are compared as it goes; memory: one
region, and the refcounts of the part of the file that a region covers.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Self

import numpy as np
import numpy.typing as npt

from hub.repository.records import FrameRecord

_HOST_CLUSTER = 65536
_TABLE_ENTRIES = 8192
_REFCOUNTS = 32768
_SECTOR = 512

Counts = npt.NDArray[np.int64]
Entries = npt.NDArray[np.uint64]


class StructureWrong(ValueError):
    """The image is not a sound QCOW2 of what the journal says."""


@dataclass(frozen=True, slots=True)
class ReadHeader:
    """The fields of a QCOW2 header that matter here, decoded."""

    capacity_bytes: int
    backing_file: str | None
    l1_entries: int
    l1_at: int
    refcount_table_at: int
    refcount_table_clusters: int

    @classmethod
    def read(cls, fd: int) -> Self:
        """Read and check the header. Raises OSError, StructureWrong."""
        data = _read(fd, _HOST_CLUSTER, 0)
        magic, version, backing_at, backing_bytes, bits, capacity = Struct(">4sIQIIQ").unpack_from(
            data
        )
        crypt, l1_entries, l1_at, table_at, table_clusters = Struct(">IIQQI").unpack_from(data, 32)
        unused = Struct(">IQ").unpack_from(data, 60)  # snapshots and where they are
        features = Struct(">QQQ").unpack_from(data, 72)  # incompatible, compatible, autoclear
        order, length, compression = Struct(">IIB").unpack_from(data, 96)
        if (magic, version, bits, order, length) != (b"QFI\xfb", 3, 16, 4, 112):
            raise StructureWrong("the header is not that of a QCOW2 version 3 image of 64 KiB")
        if (crypt, *unused, *features) != (0, 0, 0, 8, 0, 0):
            raise StructureWrong("the header names features that the layer does not have")
        if compression != 1:
            raise StructureWrong("the header does not say that clusters are compressed by zstd")
        extensions = data[length : length + 16]
        if not backing_at:
            if backing_bytes or extensions[:8] != bytes(8):
                raise StructureWrong("the header has extensions, but no backing file")
            return cls(capacity, None, l1_entries, l1_at, table_at, table_clusters)
        # Without the format QEMU would guess it from the backing file's content.
        if extensions != Struct(">II8s").pack(0xE2792ACA, 5, b"qcow2"):
            raise StructureWrong("the header does not say what format the backing file has")
        name = data[backing_at : backing_at + backing_bytes].decode(errors="replace")
        return cls(capacity, name, l1_entries, l1_at, table_at, table_clusters)


class StructureCheck:
    """The check of one layer: its regions in ascending order, then the end."""

    def __init__(self, fd: int, *, capacity_bytes: int, backing_file: str | None) -> None:
        """Raises OSError, StructureWrong."""
        self._fd = fd
        self._file_clusters, beyond = divmod(os.fstat(fd).st_size, _HOST_CLUSTER)
        if beyond:
            raise StructureWrong("the file does not end with a whole cluster")
        self._zero_entry = 0 if backing_file is None else 1
        header = ReadHeader.read(fd)
        if header.capacity_bytes != capacity_bytes or header.backing_file != backing_file:
            raise StructureWrong(
                f"the header tells of {header.capacity_bytes} bytes over {header.backing_file}"
            )
        regions = -(-capacity_bytes // (_TABLE_ENTRIES * _HOST_CLUSTER))
        if header.l1_entries != regions:
            raise StructureWrong(f"{header.l1_entries} L1 entries for {regions} regions")
        self._l1 = self._table(header.l1_at, regions)
        self._blocks = self._table(
            header.refcount_table_at, header.refcount_table_clusters * _TABLE_ENTRIES
        )
        self._metadata = self._metadata_clusters(header)
        self._counts: Counts = np.zeros(0, np.int64)
        self._counts_from = 0
        self._next_region = 0

    def region(self, region: int, frames: Sequence[FrameRecord]) -> None:
        """Compare a region's L2 table with the frames. Raises StructureWrong, OSError."""
        self._check_no_table_before(region)
        self._next_region = region + 1
        found = self._l2(region)
        numbers = np.concatenate([frame.numbers for frame in frames]) % _TABLE_ENTRIES
        sizes = np.concatenate([frame.sizes for frame in frames]).astype(np.int64)
        places = np.concatenate([frame.offsets for frame in frames]).astype(np.int64)
        raw, zero = sizes == _HOST_CLUSTER, sizes == 0
        packed = ~raw & ~zero
        entries = found[numbers]
        _expect(entries[zero] == self._zero_entry, region, "zero clusters do not read as zeros")
        _expect(entries[raw] >> 62 == 2, region, "raw clusters have wrong flags")
        _expect(_low(entries[raw], 62) == places[raw], region, "raw clusters are misplaced")
        _expect(entries[packed] >> 62 == 1, region, "compressed clusters have wrong flags")
        _expect(_low(entries[packed], 54) == places[packed], region, "clusters are misplaced")
        sectors = _low(entries[packed] >> 54, 8) + 1
        needed = -(-(places[packed] % _SECTOR + sizes[packed]) // _SECTOR)
        _expect(sectors == needed, region, "compressed clusters have wrong lengths")
        others = np.ones(_TABLE_ENTRIES, bool)
        others[numbers] = False
        _expect(found[others] == 0, region, "there are clusters that nobody sent")
        if len(sizes) > int(zero.sum()):
            self._count(region, places[~zero], sizes[~zero])

    def finish(self) -> None:
        """Check that nothing stands behind the last region, and the other refcounts."""
        self._check_no_table_before(len(self._l1))
        covered = (int(np.flatnonzero(self._blocks).max(initial=-1)) + 1) * _REFCOUNTS
        self._settle(max(self._file_clusters, covered))
        if self._counts.any():
            raise StructureWrong("clusters lie behind the end of the file")

    def _count(self, region: int, places: Counts, sizes: Counts) -> None:
        first = places // _HOST_CLUSTER
        last = (places + sizes - 1) // _HOST_CLUSTER
        lowest, highest = int(first.min()), int(last.max())
        if lowest < self._counts_from:
            raise StructureWrong(f"region {region} lies before the regions before it")
        self._settle(lowest)
        missing = highest + 1 - self._counts_from - len(self._counts)
        if missing > 0:
            self._counts = np.concatenate([self._counts, np.zeros(missing, np.int64)])
        np.add.at(self._counts, first - self._counts_from, 1)
        np.add.at(self._counts, last[last != first] - self._counts_from, 1)

    def _settle(self, end: int) -> None:
        """Compare the refcounts of all host clusters below `end` with what was counted."""
        while self._counts_from < end:
            start = self._counts_from
            stop = min(end, (start // _REFCOUNTS + 1) * _REFCOUNTS)
            expected = np.zeros(stop - start, np.int64)
            known = self._counts[: stop - start]
            expected[: len(known)] = known
            tables = self._metadata[(self._metadata >= start) & (self._metadata < stop)]
            expected[tables - start] += 1
            if bool(np.any(self._stored_refcounts(start, stop) != expected)):
                raise StructureWrong(f"wrong refcounts among host clusters {start} to {stop - 1}")
            self._counts = self._counts[stop - start :]
            self._counts_from = stop

    def _stored_refcounts(self, start: int, stop: int) -> Counts:
        index = start // _REFCOUNTS
        at = int(self._blocks[index]) if index < len(self._blocks) else 0
        if at == 0:
            return np.zeros(stop - start, np.int64)
        data = _read(self._fd, (stop - start) * 2, at + (start % _REFCOUNTS) * 2)
        return np.frombuffer(data, ">u2").astype(np.int64)

    def _metadata_clusters(self, header: ReadHeader) -> Counts:
        l1_clusters = -(-len(self._l1) * 8 // _HOST_CLUSTER)
        table_start = header.refcount_table_at // _HOST_CLUSTER
        clusters = np.concatenate(
            [
                np.array([0]),
                header.l1_at // _HOST_CLUSTER + np.arange(l1_clusters),
                table_start + np.arange(header.refcount_table_clusters),
                self._blocks[self._blocks != 0].astype(np.int64) // _HOST_CLUSTER,
                _low(self._l1[self._l1 != 0], 56) // _HOST_CLUSTER,
            ]
        )
        if len(np.unique(clusters)) != len(clusters):
            raise StructureWrong("two tables share a cluster")
        if int(clusters.max()) >= self._file_clusters:
            raise StructureWrong("a table lies behind the end of the file")
        return clusters

    def _check_no_table_before(self, region: int) -> None:
        if self._l1[self._next_region : region].any():
            raise StructureWrong(f"a region before {region} has a table, but nobody sent clusters")

    def _l2(self, region: int) -> Entries:
        entry = int(self._l1[region])
        if entry == 0:
            return np.zeros(_TABLE_ENTRIES, np.uint64)
        if entry >> 56 != 0x80:
            raise StructureWrong(f"region {region}: the L1 entry has wrong flags")
        return self._table(entry & ((1 << 56) - 1), _TABLE_ENTRIES)

    def _table(self, at: int, entries: int) -> Entries:
        if at % _HOST_CLUSTER:
            raise StructureWrong(f"a table begins within a cluster, at byte {at}")
        if at + entries * 8 > self._file_clusters * _HOST_CLUSTER:
            raise StructureWrong(f"the table at byte {at} reaches beyond the end of the file")
        return np.frombuffer(_read(self._fd, entries * 8, at), ">u8").astype(np.uint64)


def _low(entries: Entries, bits: int) -> Counts:
    return (entries & np.uint64((1 << bits) - 1)).astype(np.int64)


def _expect(right: npt.NDArray[np.bool_], region: int, problem: str) -> None:
    if not bool(right.all()):
        raise StructureWrong(f"region {region}: {problem}")


def _read(fd: int, length: int, at: int) -> bytes:
    data = os.pread(fd, length, at)
    if len(data) != length:
        raise StructureWrong(f"the file ends before byte {at + length}")
    return data
