"""A hub for the client's tests: real gRPC on a real socket, answers from memory."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc

from sendense.clusters import CLUSTER_BYTES, REGION_CLUSTERS
from sendense.codec import ClusterEncoder
from sendense.digests import DiskDigests
from sendense.v1 import restore_pb2
from tests.unit.sdk.hub_services import add_services
from tests.unit.sdk.hub_state import HubState, Part, refused

__all__ = ["ClientHub", "Part", "draw", "refused", "stored"]


def draw(layout: str, *, seed: int = 1, cut_bytes: int = 0) -> bytes:
    """A disk as text: a letter is a compressible cluster, a digit a random one, a dot a hole.

    The disk ends `cut_bytes` before the end of its last cluster.
    """
    clusters = []
    for at, letter in enumerate(layout):
        if letter == ".":
            clusters.append(bytes(CLUSTER_BYTES))
        elif letter.isdigit():
            clusters.append(random.Random(f"{seed} {at} {letter}").randbytes(CLUSTER_BYTES))
        else:
            clusters.append(f"{letter}{at}-".encode().ljust(16, b"#") * (CLUSTER_BYTES // 16))
    content = b"".join(clusters)
    return content[: len(content) - cut_bytes]


def stored(
    pieces: bytes | dict[int, bytes],
    *,
    capacity_bytes: int | None = None,
    job_id: str = "job-1",
    disk_index: int = 0,
    frame_clusters: int = 4,
    imported: bool = False,
) -> list[Part]:
    """The restore stream of a disk: its content, or {cluster number: consecutive clusters}.

    That of an `imported` one tells its counts and its root only at the end.
    """
    if isinstance(pieces, bytes):
        pieces = {0: pieces}
    capacity = capacity_bytes or max(n * CLUSTER_BYTES + len(data) for n, data in pieces.items())
    encoder, digests = ClusterEncoder(), DiskDigests(capacity)
    frames = []
    clusters = payload = 0
    for first, data in sorted(pieces.items()):
        at = 0
        while at < len(data):
            number = first + at // CLUSTER_BYTES
            room = REGION_CLUSTERS - number % REGION_CLUSTERS
            length = min(frame_clusters, room) * CLUSTER_BYTES
            batch = encoder.encode(number, data[at : at + length], keep_zeros=False)
            at += length
            if len(batch) == 0:
                continue
            frames.append(Part(frame=batch.to_frame()))
            clusters += len(batch)
            payload += batch.payload_bytes
            for i, n in enumerate(batch.numbers.tolist()):
                digests.add(n, batch.digests[i * 16 : i * 16 + 16])
    root = digests.finish()[1]
    header = restore_pb2.RestoreHeader(
        job_id=job_id,
        disk_index=disk_index,
        capacity_bytes=capacity,
        root_digest=b"" if imported else root,
        cluster_count=0 if imported else clusters,
        payload_bytes=0 if imported else payload,
        imported=imported,
        vm_name="pgtest1",
        disk_label="Hard disk 1",
    )
    trailer = restore_pb2.RestoreTrailer(
        cluster_count=clusters, payload_bytes=payload, root_digest=root if imported else b""
    )
    return [Part(header=header), *frames, Part(trailer=trailer)]


class ClientHub:
    """The server; a context manager. `state` is what it answers."""

    def __init__(self) -> None:
        self.state = HubState()
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        add_services(self._server, self.state)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.state.released.set()
        self._server.stop(grace=0).wait(10)
