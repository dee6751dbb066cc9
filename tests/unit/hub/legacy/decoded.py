"""A restore's stream as a client of imported restore points must take it."""

from collections.abc import Iterator

from sendense.clusters import CLUSTER_BYTES, DIGEST_BYTES
from sendense.codec import ClusterDecoder, from_frame
from sendense.digests import DiskDigests
from sendense.v1 import restore_pb2 as pb


def decoded(stream: Iterator[pb.RestoreDiskResponse]) -> bytes:
    """The disk, each cluster checked, and all of it against the trailer's root digest."""
    header = next(stream).header
    assert header.imported and not header.root_digest
    clusters = -(-header.capacity_bytes // CLUSTER_BYTES)
    content = bytearray(clusters * CLUSTER_BYTES)
    digests, decoder = DiskDigests(header.capacity_bytes), ClusterDecoder()
    after, count, payload = -1, 0, 0
    for part in stream:
        if part.WhichOneof("part") == "trailer":
            assert part.trailer.root_digest == digests.finish()[1]
            assert (part.trailer.cluster_count, part.trailer.payload_bytes) == (count, payload)
            return bytes(content[: header.capacity_bytes])
        batch = from_frame(part.frame, cluster_limit=clusters, after_cluster=after)
        after, count, payload = (
            batch.last_cluster,
            count + len(batch),
            payload + batch.payload_bytes,
        )
        for at, (number, data) in enumerate(decoder.decode(batch)):
            content[number * CLUSTER_BYTES : (number + 1) * CLUSTER_BYTES] = data
            digests.add(number, batch.digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES])
    raise AssertionError("the restore ended without a trailer")
