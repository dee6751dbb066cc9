"""One region of a disk as the guest sees it: the newest layer wins, cluster by cluster."""

from collections.abc import Iterable, Sequence

import numpy as np

from hub.repository.errors import LayerDamaged
from hub.repository.journal import SealedManifest
from hub.repository.records import FrameRecord
from sendense.clusters import DIGEST_BYTES, REGION_CLUSTERS, ZERO_DIGEST
from sendense.codec import ZERO_SIZE
from sendense.digests import clusters_in_region, region_digest, zero_region_digest

_ZERO_DIGEST = np.frombuffer(ZERO_DIGEST, np.uint8)


class RegionView:
    """Layers laid over each other, the oldest first; about 300 KiB.

    Per cluster of the region: `sizes` (as stored; 0 for zeros and for what was
    never written), `offsets` in the layer's file, `layers` (the number that
    `overlay` was given), `digests` (uint8[n, 16]).
    """

    def __init__(self, clusters: int) -> None:
        self.sizes = np.zeros(clusters, np.uint32)
        self.offsets = np.zeros(clusters, np.uint64)
        self.layers = np.zeros(clusters, np.int32)
        self.digests = np.tile(_ZERO_DIGEST, (clusters, 1))

    def overlay(self, frames: Iterable[FrameRecord], layer: int) -> None:
        """Lay the frames of a newer layer over what is there."""
        for frame in frames:
            within = frame.numbers % REGION_CLUSTERS
            self.sizes[within] = frame.sizes
            self.offsets[within] = frame.offsets
            self.layers[within] = layer
            self.digests[within] = np.frombuffer(frame.digests, np.uint8).reshape(-1, DIGEST_BYTES)

    def visible(self) -> "np.typing.NDArray[np.intp]":
        """The clusters with data, ascending, as numbers in the region."""
        return np.flatnonzero(self.sizes != ZERO_SIZE)

    def digest(self) -> bytes:
        """The region's digest, 32 bytes."""
        return region_digest(self.digests.tobytes())


def sealed_region(layers: Sequence[SealedManifest], region: int) -> RegionView:
    """A region of the disk that a chain's newest layer was sealed with, checked.

    `layers` are the chain, newest first; their numbers in the view are the places in
    it. Raises LayerDamaged: a record does not have its checksum, or the layers do not
    make the region that was sealed.
    """
    newest = layers[0]
    clusters = clusters_in_region(region, newest.capacity_bytes)
    view = RegionView(clusters)
    for age, manifest in reversed(list(enumerate(layers))):
        view.overlay(manifest.frames(region), age)
    row = newest.footer.row(region)
    sealed = zero_region_digest(clusters) if row is None else row["digest"].tobytes()
    if view.digest() != sealed:
        raise LayerDamaged(newest.layer, f"region {region} of its chain is not what was sealed")
    return view
