"""Reads a disk of a restore point: the layers of its chain merged, clusters as stored."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from hub.repository.errors import LayerDamaged
from hub.repository.files import Descriptors
from hub.repository.lineage import open_lineage
from hub.repository.region_view import RegionView, sealed_region
from sendense.clusters import REGION_CLUSTERS
from sendense.codec import RAW_SIZE, EncodedClusters

BATCH_BYTES: Final = 1 << 20


class Chain:
    """A layer and those below it, open for reading. A context manager; one thread.

    `cluster_count` and `payload_bytes` are those of the clusters that `batches`
    yields: the disk's clusters with data as the guest sees them.
    """

    def __init__(self, root: Path, layer_paths: Sequence[str]) -> None:
        """Open the layers, newest first, and check that they are one chain. Raises LayerDamaged."""
        self._files = Descriptors(root)
        try:
            self._layers = open_lineage(self._files, layer_paths[0])
            found = [manifest.layer for manifest in self._layers]
            if found != list(layer_paths):
                raise LayerDamaged(
                    layer_paths[0],
                    f"its chain is {', '.join(found)}; {', '.join(layer_paths)} was expected",
                )
        except BaseException:
            self._files.close()
            raise
        newest = self._layers[0].footer
        self._regions = newest.regions
        self.capacity_bytes = newest.capacity_bytes
        self.root_digest = newest.root_digest
        self.cluster_count = int(newest.regions["visible_clusters"].sum(dtype=np.int64))
        self.payload_bytes = int(newest.regions["visible_bytes"].sum(dtype=np.int64))

    def __enter__(self) -> "Chain":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; may be called twice."""
        self._files.close()

    def batches(self) -> Iterator[EncodedClusters]:
        """Yield the clusters with data, ascending, about 1 MiB and one region each.

        Raises LayerDamaged: a file is shorter than it was, a record does not
        have its checksum, the layers do not make the disk that was sealed. The
        stored bytes are checked by who decompresses them. Memory: one region.
        """
        for row in self._regions:
            if int(row["visible_clusters"]):
                yield from self._region_batches(int(row["region"]))

    def _region_batches(self, region: int) -> Iterator[EncodedClusters]:
        view = sealed_region(self._layers, region)
        visible = view.visible()
        ends = np.cumsum(view.sizes[visible], dtype=np.int64)
        cuts = np.searchsorted(ends, np.arange(BATCH_BYTES, int(ends[-1]), BATCH_BYTES), "right")
        for within in np.split(visible, np.unique(cuts)):
            if len(within):
                yield self._batch(region, view, within)

    def _batch(
        self, region: int, view: RegionView, within: npt.NDArray[np.intp]
    ) -> EncodedClusters:
        sizes = view.sizes[within]
        raw = sizes == RAW_SIZE
        return EncodedClusters(
            (within + region * REGION_CLUSTERS).astype(np.uint32),
            sizes,
            view.digests[within].tobytes(),
            self._stored(view, within[~raw]),
            self._stored(view, within[raw]),
        )

    def _stored(self, view: RegionView, within: npt.NDArray[np.intp]) -> bytes:
        """The stored bytes of clusters one after the other; one read for each contiguous run."""
        if not len(within):
            return b""
        layers = view.layers[within]
        starts = view.offsets[within].astype(np.int64)
        ends = starts + view.sizes[within]
        breaks = np.flatnonzero((starts[1:] != ends[:-1]) | (layers[1:] != layers[:-1])) + 1
        firsts = np.concatenate([[0], breaks])
        lasts = np.concatenate([breaks, [len(within)]]) - 1
        runs = zip(
            layers[firsts].tolist(), starts[firsts].tolist(), ends[lasts].tolist(), strict=True
        )
        parts = [
            self._files.read(self._layers[layer].layer, end - start, start)
            for layer, start, end in runs
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)
