"""The records of a manifest: one envelope, three kinds, a trailer (docs/formats.md, Manifest).

All integers are little-endian. Nothing here reads or writes files.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Final, Self

import numpy as np
from blake3 import blake3

from sendense.clusters import CLUSTER_BYTES, DIGEST_BYTES, REGION_CLUSTERS
from sendense.codec import RAW_SIZE, ZERO_SIZE, Array32, EncodedClusters
from sendense.qcow2_format import OFFSET_LIMIT, Array64
from sendense.qcow2_placement import Placement

CHECKSUM_BYTES: Final = 16


class ManifestInvalid(ValueError):
    """Bytes that are not the record they should be."""


class RecordKind(IntEnum):
    """What a record's body is."""

    HEADER = 1  # JSON: the layer's identity and base
    FRAME = 2  # one frame: arrays and places
    FOOTER = 3  # the sealed layer: JSON totals and the region table


@dataclass(frozen=True, slots=True)
class Envelope:
    """The 32 bytes before each record's body; the checksum is BLAKE3 of the 16 bytes before it and the body."""

    LAYOUT: ClassVar[Struct] = Struct("<4sHHII")
    MAGIC: ClassVar[bytes] = b"SnMr"
    BYTES: ClassVar[int] = 16 + CHECKSUM_BYTES
    # The longest bodies there can be: a frame of 8192 clusters; the regions of 256 TiB.
    BODY_LIMITS: ClassVar[dict[RecordKind, int]] = {
        RecordKind.HEADER: 1 << 20,
        RecordKind.FRAME: 1 << 18,
        RecordKind.FOOTER: 1 << 26,
    }

    # magic
    kind: RecordKind
    # zero, 16 bits
    body_bytes: int
    sequence: int  # 0, 1, 2 ... in the manifest
    checksum: bytes

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode 32 bytes. Raises ManifestInvalid."""
        magic, kind, zero, body_bytes, sequence = cls.LAYOUT.unpack_from(data)
        if magic != cls.MAGIC or zero:
            raise ManifestInvalid("no record begins here")
        try:
            known = RecordKind(kind)
        except ValueError as error:
            raise ManifestInvalid(f"a record of unknown kind {kind}") from error
        if body_bytes > cls.BODY_LIMITS[known]:
            raise ManifestInvalid(f"a record of {body_bytes} bytes is too long")
        return cls(known, body_bytes, sequence, data[cls.LAYOUT.size : cls.BYTES])

    def check(self, body: bytes | memoryview) -> None:
        """Raise ManifestInvalid unless the checksum is that of this envelope and body."""
        if _checksum(self._start(), body) != self.checksum:
            raise ManifestInvalid(f"record {self.sequence} does not have its checksum")

    def _start(self) -> bytes:
        return self.LAYOUT.pack(self.MAGIC, self.kind, 0, self.body_bytes, self.sequence)


def pack_record(kind: RecordKind, sequence: int, body: bytes) -> bytes:
    """Envelope and body. Raises ManifestInvalid for a body over its kind's limit."""
    if len(body) > Envelope.BODY_LIMITS[kind]:
        raise ManifestInvalid(f"a record of {len(body)} bytes is too long")
    start = Envelope.LAYOUT.pack(Envelope.MAGIC, kind, 0, len(body), sequence)
    return b"".join((start, _checksum(start, body), body))


@dataclass(frozen=True, slots=True, eq=False)
class FrameRecord:
    """One frame: what its clusters are and where their bytes lie in the layer.

    `frame_checksum` is ClusterFrame.checksum: with it the stored bytes can be
    verified without decompressing them.
    """

    LAYOUT: ClassVar[Struct] = Struct("<IIIIQQQIIII16s")

    # first cluster, last cluster, count, zero
    # head_at, raw_at, rest_at, head_bytes, raw_bytes, rest_bytes, zero
    placement: Placement
    frame_checksum: bytes
    numbers: Array32
    sizes: Array32
    digests: bytes  # 16 bytes each
    offsets: Array64 = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", self.placement.offsets(self.sizes))

    @property
    def first_cluster(self) -> int:
        return int(self.numbers[0])

    @property
    def last_cluster(self) -> int:
        return int(self.numbers[-1])

    @property
    def region(self) -> int:
        return int(self.numbers[0]) // REGION_CLUSTERS

    @classmethod
    def pack(cls, batch: EncodedClusters, placement: Placement, frame_checksum: bytes) -> bytes:
        """The record's body."""
        fixed = cls.LAYOUT.pack(
            batch.first_cluster,
            batch.last_cluster,
            len(batch),
            0,
            placement.head_at,
            placement.raw_at,
            placement.rest_at,
            placement.head_bytes,
            placement.raw_bytes,
            placement.rest_bytes,
            0,
            frame_checksum,
        )
        return b"".join(
            (
                fixed,
                batch.numbers.astype("<u4", copy=False).tobytes(),
                batch.sizes.astype("<u4", copy=False).tobytes(),
                batch.digests,
            )
        )

    @classmethod
    def unpack(cls, body: bytes | memoryview) -> Self:
        """Decode a body and check that its parts agree. Raises ManifestInvalid."""
        if len(body) < cls.LAYOUT.size:
            raise ManifestInvalid("a frame record is too short")
        fixed = cls.LAYOUT.unpack_from(body)
        first, last, count, zero = fixed[:4]
        head_at, raw_at, rest_at, head_bytes, raw_bytes, rest_bytes, zero_too, checksum = fixed[4:]
        at = cls.LAYOUT.size
        if count == 0 or zero or zero_too or len(body) != at + count * (8 + DIGEST_BYTES):
            raise ManifestInvalid(f"a frame record of {len(body)} bytes for {count} clusters")
        numbers = np.frombuffer(body, "<u4", count, at)
        sizes = np.frombuffer(body, "<u4", count, at + 4 * count)
        placement = Placement(head_at, head_bytes, raw_at, raw_bytes, rest_at, rest_bytes)
        _check_frame(first, last, numbers, sizes, placement)
        return cls(placement, checksum, numbers, sizes, bytes(body[at + 8 * count :]))


@dataclass(frozen=True, slots=True)
class Trailer:
    """The last 40 bytes of a sealed manifest: where the footer record is."""

    LAYOUT: ClassVar[Struct] = Struct("<8sQQ")
    MAGIC: ClassVar[bytes] = b"SnSealed"
    BYTES: ClassVar[int] = 24 + CHECKSUM_BYTES

    # magic
    footer_at: int
    footer_bytes: int  # envelope and body
    # checksum of the 24 bytes before

    def pack(self) -> bytes:
        """The 40 bytes."""
        start = self.LAYOUT.pack(self.MAGIC, self.footer_at, self.footer_bytes)
        return start + _checksum(start)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode. Raises ManifestInvalid."""
        if len(data) != cls.BYTES:
            raise ManifestInvalid("no trailer: the manifest was not sealed")
        magic, footer_at, footer_bytes = cls.LAYOUT.unpack_from(data)
        if magic != cls.MAGIC or _checksum(data[: cls.LAYOUT.size]) != data[cls.LAYOUT.size :]:
            raise ManifestInvalid("no trailer: the manifest was not sealed or is damaged")
        return cls(footer_at, footer_bytes)


def _check_frame(
    first: int, last: int, numbers: Array32, sizes: Array32, placement: Placement
) -> None:
    if first != int(numbers[0]) or last != int(numbers[-1]):
        raise ManifestInvalid("a frame record's first and last cluster are not those of its array")
    if not bool(np.all(numbers[1:] > numbers[:-1])):
        raise ManifestInvalid(f"clusters {first} to {last} are not strictly ascending")
    if first // REGION_CLUSTERS != last // REGION_CLUSTERS:
        raise ManifestInvalid(f"clusters {first} to {last} lie in two regions")
    if max(placement.head_at, placement.raw_at, placement.rest_at) >= OFFSET_LIMIT:
        raise ManifestInvalid("a frame record's place is beyond what QCOW2 can address")
    if int(sizes.max()) > RAW_SIZE:
        raise ManifestInvalid(f"a stored size of {int(sizes.max())} bytes")
    packed = sizes[(sizes != ZERO_SIZE) & (sizes != RAW_SIZE)]
    raw_bytes = int(np.count_nonzero(sizes == RAW_SIZE)) * CLUSTER_BYTES
    packed_bytes = int(packed.sum(dtype=np.int64))
    if raw_bytes != placement.raw_bytes or placement.raw_at % CLUSTER_BYTES:
        raise ManifestInvalid("a frame record's raw run is not that of its sizes")
    if packed_bytes != placement.head_bytes + placement.rest_bytes:
        raise ManifestInvalid("a frame record's compressed runs are not those of its sizes")
    if placement.head_bytes and placement.head_bytes not in np.cumsum(packed, dtype=np.int64):
        raise ManifestInvalid("a frame record's head run cuts a cluster in two")


def _checksum(*parts: bytes | memoryview) -> bytes:
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest(CHECKSUM_BYTES)
