"""The middle of an upload: extents become encoded clusters in threads, and then frames in order."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from sendense.clusters import CLUSTER_BYTES
from sendense.codec import DEFAULT_LEVEL, ClusterEncoder, EncodedClusters, merge

# Measured: below 256 KiB the cost of a message shows, above 1 MiB only the
# latency grows.
FRAME_PAYLOAD_BYTES: Final = 1024 * 1024
# One more than cores: while a thread waits for the interpreter's lock, another
# one compresses. Measured on two cores: 4 % less time than with two threads.
DEFAULT_THREADS: Final = (os.cpu_count() or 1) + 1


class EncoderPool:
    """Threads that digest and compress; shared by all uploads of a process. Thread-safe.

    zstd, BLAKE3 and reads release the interpreter's lock, so that threads keep
    the cores busy.
    """

    def __init__(self, threads: int | None = None, level: int = DEFAULT_LEVEL) -> None:
        self._level = level
        self._local = threading.local()
        self._executor = ThreadPoolExecutor(threads or DEFAULT_THREADS, thread_name_prefix="encode")

    def submit(
        self, start_byte: int, data: bytes | bytearray, *, base_digests: bytes | None
    ) -> Future[EncodedClusters]:
        """Encode an extent that starts on a cluster boundary.

        With `base_digests`, 16 bytes for each cluster, what equals them is left out;
        without, zeros are (see ClusterEncoder.encode).
        """
        return self._executor.submit(self._encode, start_byte // CLUSTER_BYTES, data, base_digests)

    def close(self) -> None:
        """Give up what waits and end the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _encode(
        self, first_cluster: int, data: bytes | bytearray, base_digests: bytes | None
    ) -> EncodedClusters:
        encoder: ClusterEncoder | None = getattr(self._local, "encoder", None)
        if encoder is None:
            encoder = self._local.encoder = ClusterEncoder(self._level)
        return encoder.encode(first_cluster, data, keep_zeros=False, base_digests=base_digests)


class FrameBuilder:
    """Joins small batches into frames of about 1 MiB of payload, each within one region."""

    def __init__(self) -> None:
        self._waiting: list[EncodedClusters] = []
        self._payload_bytes = 0

    def add(self, batch: EncodedClusters) -> Iterator[EncodedClusters]:
        """Take the next batch; yield what is ready to be sent (none to two batches)."""
        if not len(batch):
            return
        if self._waiting and (
            batch.region != self._waiting[0].region
            or self._payload_bytes + batch.payload_bytes > 2 * FRAME_PAYLOAD_BYTES
        ):
            yield self._joined()
        self._waiting.append(batch)
        self._payload_bytes += batch.payload_bytes
        if self._payload_bytes >= FRAME_PAYLOAD_BYTES:
            yield self._joined()

    def finish(self) -> Iterator[EncodedClusters]:
        """Yield the rest."""
        if self._waiting:
            yield self._joined()

    def _joined(self) -> EncodedClusters:
        joined = merge(self._waiting)
        self._waiting = []
        self._payload_bytes = 0
        return joined
