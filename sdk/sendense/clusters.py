"""Clusters, regions and digests: the units everything is counted in (docs/formats.md)."""

from typing import Final

from blake3 import blake3

CLUSTER_BYTES: Final = 65536
REGION_CLUSTERS: Final = 8192
REGION_BYTES: Final = CLUSTER_BYTES * REGION_CLUSTERS
DIGEST_BYTES: Final = 16
REGION_DIGEST_BYTES: Final = 32

ZERO_CLUSTER: Final = bytes(CLUSTER_BYTES)


def cluster_digest(cluster: bytes | memoryview) -> bytes:
    """BLAKE3 of one uncompressed cluster (65536 bytes), its first 16 bytes."""
    return blake3(cluster).digest(DIGEST_BYTES)


ZERO_DIGEST: Final = cluster_digest(ZERO_CLUSTER)


def cluster_count(capacity_bytes: int) -> int:
    """Clusters of a disk of that size; the last one may be partly beyond its end."""
    return -(-capacity_bytes // CLUSTER_BYTES)


def region_count(capacity_bytes: int) -> int:
    """Regions of a disk of that size; the last one may be shorter."""
    return -(-cluster_count(capacity_bytes) // REGION_CLUSTERS)
