"""Clusters as they travel and as they are stored: one format (docs/formats.md, Frames).

A batch of clusters is packed arrays plus two runs of bytes: the zstd frames of
the compressed clusters and the raw clusters. The agent encodes, the hub checks
and appends, whoever restores decodes. Nobody else knows the format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import zstandard
from blake3 import blake3

from sendense.clusters import (
    CLUSTER_BYTES,
    DIGEST_BYTES,
    REGION_CLUSTERS,
    ZERO_CLUSTER,
    ZERO_DIGEST,
    cluster_count,
    cluster_digest,
)
from sendense.v1 import clusters_pb2

Array32 = npt.NDArray[np.uint32]

RAW_SIZE: Final = CLUSTER_BYTES
ZERO_SIZE: Final = 0
CHECKSUM_BYTES: Final = 16
# Level 1 costs about 4 % more space than zstd's default and half its time.
DEFAULT_LEVEL: Final = 1
_ZERO_HEAD: Final = bytes(64)


class FrameInvalid(ValueError):
    """A frame breaks a rule of the format: arrays, order, range or lengths."""


class FrameCorrupt(ValueError):
    """A frame's bytes are not those that its checksum was made of."""


class ClusterDamaged(ValueError):
    """A stored cluster does not decompress to the content its digest names."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedClusters:
    """A batch of clusters of one region, ascending; the fields of ClusterFrame.

    `numbers` and `sizes` are uint32[n], `digests` is n * 16 bytes, `compressed`
    holds the zstd frames and `raw` the raw clusters, both in cluster order.
    """

    numbers: Array32
    sizes: Array32
    digests: bytes
    compressed: bytes
    raw: bytes

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def payload_bytes(self) -> int:
        return len(self.compressed) + len(self.raw)

    @property
    def first_cluster(self) -> int:
        return int(self.numbers[0])

    @property
    def last_cluster(self) -> int:
        return int(self.numbers[-1])

    @property
    def region(self) -> int:
        return int(self.numbers[0]) // REGION_CLUSTERS

    def checksum(self) -> bytes:
        """BLAKE3 of the five fields in order, first 16 bytes."""
        return _checksum(
            _little_endian(self.numbers),
            _little_endian(self.sizes),
            self.digests,
            self.compressed,
            self.raw,
        )

    def to_frame(self) -> clusters_pb2.ClusterFrame:
        """The batch as a message, with its checksum."""
        return clusters_pb2.ClusterFrame(
            cluster_numbers=_little_endian(self.numbers),
            stored_sizes=_little_endian(self.sizes),
            digests=self.digests,
            compressed=self.compressed,
            raw=self.raw,
            checksum=self.checksum(),
        )


def from_frame(
    frame: clusters_pb2.ClusterFrame, *, cluster_limit: int, after_cluster: int = -1
) -> EncodedClusters:
    """Check a received frame and return its batch.

    `cluster_limit` is the disk's cluster count; every cluster must be greater
    than `after_cluster`. Raises FrameCorrupt or FrameInvalid; takes a constant
    number of Python operations.
    """
    # Each access of a message's field makes a copy: once is enough.
    numbers, sizes, digests = frame.cluster_numbers, frame.stored_sizes, frame.digests
    compressed, raw, checksum = frame.compressed, frame.raw, frame.checksum
    actual = _checksum(numbers, sizes, digests, compressed, raw)
    if actual != checksum:
        raise FrameCorrupt(f"frame checksum is {checksum.hex()}, its content's {actual.hex()}")
    if len(numbers) % 4 or len(sizes) % 4:
        raise FrameInvalid("cluster numbers and sizes are not whole 32-bit numbers")
    batch = EncodedClusters(
        np.frombuffer(numbers, "<u4"), np.frombuffer(sizes, "<u4"), digests, compressed, raw
    )
    check_batch(batch, cluster_limit=cluster_limit, after_cluster=after_cluster)
    return batch


def check_batch(batch: EncodedClusters, *, cluster_limit: int, after_cluster: int = -1) -> None:
    """Check the rules of a batch. Raises FrameInvalid naming the first broken one."""
    numbers, sizes = batch.numbers, batch.sizes
    count = len(numbers)
    if count == 0:
        raise FrameInvalid("a frame without clusters")
    if len(sizes) != count or len(batch.digests) != count * DIGEST_BYTES:
        raise FrameInvalid(
            f"{count} cluster numbers, {len(sizes)} sizes, {len(batch.digests)} digest bytes"
        )
    first, last = batch.first_cluster, batch.last_cluster
    if first <= after_cluster:
        raise FrameInvalid(f"cluster {first} comes after cluster {after_cluster}: out of order")
    if count > 1 and not bool(np.all(numbers[1:] > numbers[:-1])):
        raise FrameInvalid(f"clusters {first} to {last} are not strictly ascending")
    if last >= cluster_limit:
        raise FrameInvalid(f"cluster {last} is beyond the disk's {cluster_limit} clusters")
    if first // REGION_CLUSTERS != last // REGION_CLUSTERS:
        raise FrameInvalid(f"clusters {first} to {last} lie in two regions")
    if int(sizes.max()) > RAW_SIZE:
        raise FrameInvalid(f"a stored size of {int(sizes.max())} bytes is over {RAW_SIZE}")
    raw_bytes = int(np.count_nonzero(sizes == RAW_SIZE)) * CLUSTER_BYTES
    compressed_bytes = int(sizes.sum(dtype=np.uint64)) - raw_bytes
    if raw_bytes != len(batch.raw) or compressed_bytes != len(batch.compressed):
        raise FrameInvalid(
            f"sizes add up to {compressed_bytes} compressed and {raw_bytes} raw bytes, "
            f"the payload has {len(batch.compressed)} and {len(batch.raw)}"
        )
    zeros = sizes == ZERO_SIZE
    if bool(zeros.any()):
        digests = np.frombuffer(batch.digests, np.uint8).reshape(count, DIGEST_BYTES)
        if bool(np.any(digests[zeros] != np.frombuffer(ZERO_DIGEST, np.uint8))):
            raise FrameInvalid(f"a zero cluster among {first} to {last} has another digest")


def merge(batches: Sequence[EncodedClusters]) -> EncodedClusters:
    """Join batches of one region that follow each other. The caller keeps the order."""
    if len(batches) == 1:
        return batches[0]
    return EncodedClusters(
        np.concatenate([b.numbers for b in batches]),
        np.concatenate([b.sizes for b in batches]),
        b"".join([b.digests for b in batches]),
        b"".join([b.compressed for b in batches]),
        b"".join([b.raw for b in batches]),
    )


class ClusterEncoder:
    """Compresses clusters. Not thread-safe: one per thread, reused, since a zstd context is dear."""

    def __init__(self, level: int = DEFAULT_LEVEL) -> None:
        self._compressor = zstandard.ZstdCompressor(level=level)

    def encode(
        self,
        first_cluster: int,
        data: bytes | bytearray | memoryview,
        *,
        keep_zeros: bool,
        base_digests: bytes | None = None,
    ) -> EncodedClusters:
        """Encode consecutive clusters of one region.

        `data` starts at cluster `first_cluster`; when it does not end on a
        cluster boundary (the disk's end) it is padded with zeros. Zero clusters
        are left out, or kept as size 0 where `keep_zeros` (increments: the base
        may hold old data there).

        With `base_digests`, 16 bytes for each cluster of `data`, whatever the base
        holds already is left out, zeros as well, before anything is compressed;
        `keep_zeros` is not looked at. The result may be empty. Raises ValueError for
        digests of another number of clusters.
        """
        count = cluster_count(len(data))
        if base_digests is not None and len(base_digests) != count * DIGEST_BYTES:
            raise ValueError(f"{len(base_digests)} bytes of digests for {count} clusters")
        if isinstance(data, memoryview):
            data = bytes(data)
        view = memoryview(data)
        numbers: list[int] = []
        sizes: list[int] = []
        digests: list[bytes] = []
        compressed: list[bytes] = []
        raw: list[bytes] = []
        compress = self._compressor.compress
        for index, start in enumerate(range(0, len(data), CLUSTER_BYTES)):
            cluster: memoryview | bytes = view[start : start + CLUSTER_BYTES]
            # A look at the head spares most clusters the copy into `bytes`, which
            # compares at memory speed where a memoryview does not.
            may_be_zero = data.startswith(_ZERO_HEAD, start)
            if len(cluster) != CLUSTER_BYTES:
                cluster = bytes(cluster).ljust(CLUSTER_BYTES, b"\0")
                may_be_zero = True
            zero = may_be_zero and bytes(cluster) == ZERO_CLUSTER
            if zero and base_digests is None and not keep_zeros:
                continue
            digest = ZERO_DIGEST if zero else cluster_digest(cluster)
            if base_digests is not None and base_digests.startswith(digest, index * DIGEST_BYTES):
                continue
            numbers.append(first_cluster + index)
            digests.append(digest)
            if zero:
                sizes.append(ZERO_SIZE)
                continue
            stored = compress(cluster)
            if len(stored) < CLUSTER_BYTES:
                compressed.append(stored)
                sizes.append(len(stored))
            else:
                raw.append(bytes(cluster))
                sizes.append(RAW_SIZE)
        return EncodedClusters(
            np.array(numbers, np.uint32),
            np.array(sizes, np.uint32),
            b"".join(digests),
            b"".join(compressed),
            b"".join(raw),
        )


class ClusterDecoder:
    """Decompresses clusters and checks their digests. Not thread-safe: one per thread."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor()

    def decode(self, batch: EncodedClusters) -> Iterator[tuple[int, bytes]]:
        """Yield (cluster number, its 65536 bytes) in order, each checked against its digest.

        Raises ClusterDamaged at the first that does not match; what was yielded
        before is good.
        """
        compressed, raw, digests = (
            memoryview(batch.compressed),
            memoryview(batch.raw),
            batch.digests,
        )
        compressed_at = raw_at = digest_at = 0
        decompress = self._decompressor.decompress
        content_size = zstandard.frame_content_size
        for number, size in zip(batch.numbers.tolist(), batch.sizes.tolist(), strict=True):
            if size == RAW_SIZE:
                cluster = bytes(raw[raw_at : raw_at + CLUSTER_BYTES])
                raw_at += CLUSTER_BYTES
            elif size == ZERO_SIZE:
                cluster = ZERO_CLUSTER
            else:
                stored = compressed[compressed_at : compressed_at + size]
                compressed_at += size
                try:
                    # What a frame claims of itself is allocated before it is decompressed.
                    if content_size(stored) > CLUSTER_BYTES:
                        raise ClusterDamaged(f"cluster {number} claims to be larger than it is")
                    cluster = decompress(stored, max_output_size=CLUSTER_BYTES)
                except zstandard.ZstdError as error:
                    raise ClusterDamaged(
                        f"cluster {number} does not decompress: {error}"
                    ) from error
                if len(cluster) != CLUSTER_BYTES:
                    raise ClusterDamaged(f"cluster {number} has {len(cluster)} bytes")
            if cluster_digest(cluster) != digests[digest_at : digest_at + DIGEST_BYTES]:
                raise ClusterDamaged(
                    f"cluster {number} does not have the digest it was stored with"
                )
            digest_at += DIGEST_BYTES
            yield number, cluster


def _little_endian(array: Array32) -> bytes:
    return array.astype("<u4", copy=False).tobytes()


def _checksum(*parts: bytes) -> bytes:
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest(CHECKSUM_BYTES)
