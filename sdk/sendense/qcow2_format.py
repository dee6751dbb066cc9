"""The QCOW2 structures that Sendense writes: header, table entries, limits (docs/formats.md, Layer).

Source: QEMU's docs/interop/qcow2.txt, version 3. All integers of a QCOW2 file
are big-endian.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

import numpy as np
import numpy.typing as npt

from sendense.clusters import CLUSTER_BYTES, region_count
from sendense.codec import RAW_SIZE, ZERO_SIZE, Array32

Array64 = npt.NDArray[np.uint64]

CLUSTER_BITS: Final = 16
SECTOR_BYTES: Final = 512
# An L2 table and a region cover the same 8192 clusters.
L2_ENTRIES: Final = CLUSTER_BYTES // 8
# Host clusters whose 16-bit refcounts fill one refcount block.
REFCOUNTS_PER_BLOCK: Final = CLUSTER_BYTES // 2
REFCOUNT_LIMIT: Final = 0xFFFF
# Cluster numbers are 32-bit everywhere in Sendense.
CAPACITY_LIMIT: Final = CLUSTER_BYTES << 32
BACKING_NAME_LIMIT: Final = 1023

# Entries: bit 63 "refcount is one", bit 62 "compressed", bit 0 "reads as zeros".
COPIED: Final = 1 << 63
COMPRESSED: Final = 1 << 62
ZERO_CLUSTER_ENTRY: Final = 1
# 62 - (cluster_bits - 8): below it the offset, above it the additional sectors.
SECTORS_SHIFT: Final = 54
OFFSET_LIMIT: Final = 1 << SECTORS_SHIFT

_MAGIC: Final = 0x514649FB
_COMPRESSION_TYPE_BIT: Final = 1 << 3
_COMPRESSION_ZSTD: Final = 1
_REFCOUNT_ORDER: Final = 4
_EXTENSION_END: Final = 0
_EXTENSION_BACKING_FORMAT: Final = 0xE2792ACA


class CapacityInvalid(ValueError):
    """A disk size that a QCOW2 image of ours cannot have."""


class Qcow2LimitExceeded(ValueError):
    """The image would break a limit of the format."""


def check_capacity(capacity_bytes: int) -> None:
    """Raise CapacityInvalid unless the size is a positive multiple of 512 within 32-bit clusters."""
    if capacity_bytes <= 0 or capacity_bytes % SECTOR_BYTES:
        raise CapacityInvalid(
            f"{capacity_bytes} bytes is not a positive multiple of {SECTOR_BYTES} bytes"
        )
    if capacity_bytes > CAPACITY_LIMIT:
        raise CapacityInvalid(f"{capacity_bytes} bytes is over the limit of {CAPACITY_LIMIT} bytes")


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """The header cluster: fixed part, extensions, backing file name."""

    # magic, version, backing name offset, backing name bytes, cluster_bits,
    # virtual size, encryption, L1 entries, L1 offset, refcount table offset,
    # refcount table clusters, snapshots, snapshots offset, incompatible,
    # compatible, autoclear features, refcount_order, header bytes, compression type
    LAYOUT = Struct(">IIQIIQIIQQIIQQQQIIB7x")
    EXTENSION = Struct(">II")

    capacity_bytes: int
    l1_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    backing_file: str | None = None
    backing_format: str = "qcow2"

    def pack(self) -> bytes:
        """The bytes from offset 0. Raises Qcow2LimitExceeded for a backing name that is too long."""
        name = b"" if self.backing_file is None else self.backing_file.encode()
        if len(name) > BACKING_NAME_LIMIT:
            raise Qcow2LimitExceeded(
                f"a backing file name of {len(name)} bytes is over {BACKING_NAME_LIMIT}"
            )
        extensions = b""
        if name:
            kind = self.backing_format.encode()
            extensions += self.EXTENSION.pack(_EXTENSION_BACKING_FORMAT, len(kind))
            extensions += kind.ljust(-(-len(kind) // 8) * 8, b"\0")
        extensions += self.EXTENSION.pack(_EXTENSION_END, 0)
        fixed = self.LAYOUT.pack(
            _MAGIC,
            3,
            self.LAYOUT.size + len(extensions) if name else 0,
            len(name),
            CLUSTER_BITS,
            self.capacity_bytes,
            0,
            region_count(self.capacity_bytes),
            self.l1_offset,
            self.refcount_table_offset,
            self.refcount_table_clusters,
            0,
            0,
            _COMPRESSION_TYPE_BIT,
            0,
            0,
            _REFCOUNT_ORDER,
            self.LAYOUT.size,
            _COMPRESSION_ZSTD,
        )
        return fixed + extensions + name


def l2_entries(offsets: Array64, sizes: Array32, *, zero_entry: int) -> Array64:
    """The L2 entries of stored clusters: uint64[n] from their places and stored sizes.

    `zero_entry` stands for a zero cluster: 1 over a backing file, 0 (not
    allocated, reads as zeros as well) in an image without one.
    """
    long_sizes = sizes.astype(np.uint64)
    sectors = ((offsets + long_sizes - np.uint64(1)) >> np.uint64(9)) - (offsets >> np.uint64(9))
    packed = offsets | (sectors << np.uint64(SECTORS_SHIFT)) | np.uint64(COMPRESSED)
    entries = np.where(sizes == RAW_SIZE, offsets | np.uint64(COPIED), packed)
    entries[sizes == ZERO_SIZE] = zero_entry
    return entries


def host_clusters(offsets: Array64, sizes: Array32) -> npt.NDArray[np.int64]:
    """The host clusters that stored clusters touch, once for each that touches one.

    A compressed cluster counts in both host clusters when it crosses a border.
    """
    stored = sizes != ZERO_SIZE
    starts = offsets[stored].astype(np.int64)
    ends = starts + sizes[stored].astype(np.int64) - 1
    first, last = starts >> CLUSTER_BITS, ends >> CLUSTER_BITS
    return np.concatenate([first, last[last != first]])
