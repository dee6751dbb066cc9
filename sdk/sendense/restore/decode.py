"""Decoding in a few threads: each cluster is decompressed and checked against its digest."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from sendense.codec import ClusterDamaged, ClusterDecoder, EncodedClusters
from sendense.errors import DataLoss

BATCHES_PER_THREAD: Final = 4

Clusters = Iterator[tuple[int, bytes]]


class DecodePool:
    """Decodes batches in parallel and hands the clusters of each, in order, to `consume`.

    `consume` runs in the pool's threads, several at a time, and must read its
    iterator to the end. At most four batches (of about 1 MiB) per thread are in flight. One
    thread submits; the first error comes out of `submit` or `finish`.
    """

    def __init__(self, threads: int, consume: Callable[[Clusters], None]) -> None:
        self._consume = consume
        self._limit = threads * BATCHES_PER_THREAD
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="restore-decode")
        self._in_flight: list[Future[None]] = []
        self._local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Waits for the batches being decoded: afterwards nobody writes any more.
        self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, batch: EncodedClusters) -> None:
        """Queue a batch, waiting while too many are in flight. Raises DataLoss, what `consume` raises."""
        while len(self._in_flight) >= self._limit:
            self._in_flight.pop(0).result()
        self._in_flight.append(self._executor.submit(self._work, batch))

    def finish(self) -> None:
        """Wait for everything submitted. Raises as `submit` does."""
        while self._in_flight:
            self._in_flight.pop(0).result()

    def _work(self, batch: EncodedClusters) -> None:
        decoder = getattr(self._local, "decoder", None)
        if decoder is None:
            decoder = self._local.decoder = ClusterDecoder()
        try:
            self._consume(decoder.decode(batch))
        except ClusterDamaged as error:
            raise DataLoss(str(error), reason="CLUSTER_DAMAGED") from error
