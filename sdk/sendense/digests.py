"""Region digests and the root digest of a disk (docs/formats.md, Digests)."""

from collections.abc import Iterable
from functools import lru_cache

from blake3 import blake3

from sendense.clusters import (
    DIGEST_BYTES,
    REGION_CLUSTERS,
    REGION_DIGEST_BYTES,
    ZERO_DIGEST,
    cluster_count,
    region_count,
)


def clusters_in_region(region: int, capacity_bytes: int) -> int:
    """Clusters of that region of a disk; fewer than 8192 only in the last one."""
    return min(REGION_CLUSTERS, cluster_count(capacity_bytes) - region * REGION_CLUSTERS)


def region_digest(digests: bytes | bytearray) -> bytes:
    """BLAKE3 (32 bytes) over the digests of all clusters of a region, in order."""
    return blake3(digests).digest(REGION_DIGEST_BYTES)


@lru_cache(maxsize=16)
def zero_region_digest(clusters: int) -> bytes:
    """The digest of a region of that many clusters in which nothing was ever written."""
    return region_digest(ZERO_DIGEST * clusters)


def root_digest(region_digests: Iterable[bytes]) -> bytes:
    """BLAKE3 (32 bytes) over the region digests, in order."""
    hasher = blake3()
    for digest in region_digests:
        hasher.update(digest)
    return hasher.digest(REGION_DIGEST_BYTES)


class DiskDigests:
    """Collects cluster digests of one disk, in ascending order, into region digests and the root.

    Memory: one region (128 KiB) and 32 bytes per region.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._regions = [
            zero_region_digest(clusters_in_region(r, capacity_bytes))
            for r in range(region_count(capacity_bytes))
        ]
        self._open: int | None = None
        self._current = bytearray()

    def add(self, number: int, digest: bytes) -> None:
        """The digest of a cluster; numbers must ascend by region."""
        region, within = divmod(number, REGION_CLUSTERS)
        if region != self._open:
            self._close_region()
            self._open = region
            self._current = bytearray(ZERO_DIGEST * clusters_in_region(region, self._capacity))
        self._current[within * DIGEST_BYTES : (within + 1) * DIGEST_BYTES] = digest

    def finish(self) -> tuple[list[bytes], bytes]:
        """Region digests and the root digest."""
        self._close_region()
        return self._regions, root_digest(self._regions)

    def _close_region(self) -> None:
        if self._open is not None:
            self._regions[self._open] = region_digest(self._current)
            self._open = None
