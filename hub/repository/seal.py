"""From the journal of an upload to tables and digests: what sealing a layer computes.

The journal is read back from its file: what the layer's tables and the digests
are made of is what a reader will find later.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from hub.repository.journal import JournalReader, PlacedFrame, SealedManifest
from hub.repository.manifest import REGION_ROW, LayerTotals, RegionTable
from hub.repository.records import FrameRecord, ManifestInvalid
from hub.repository.region_view import RegionView
from sendense.clusters import REGION_CLUSTERS
from sendense.codec import ZERO_SIZE
from sendense.digests import clusters_in_region
from sendense.qcow2_tables import ImageTables


def write_tables(
    journal: JournalReader, tables: ImageTables, base: Sequence[SealedManifest]
) -> tuple[LayerTotals, RegionTable]:
    """Read the journal once: write the L2 tables, sum up, make the table of regions.

    `base` are the layers below, newest first. Memory: one region. Raises
    OSError; Qcow2LimitExceeded; ManifestInvalid when the journal is not whole,
    LayerDamaged when a base's manifest is not.
    """
    rows = _Rows(journal.header.identity.capacity_bytes, base)
    clusters = zero_clusters = payload_bytes = 0
    for region, placed in by_region(journal.frames()):
        frames = [each.frame for each in placed]
        sizes = np.concatenate([frame.sizes for frame in frames])
        tables.add_region(
            region,
            np.concatenate([frame.numbers for frame in frames]) % REGION_CLUSTERS,
            np.concatenate([frame.offsets for frame in frames]),
            sizes,
        )
        records_at = placed[0].record_at
        records_end = placed[-1].record_at + placed[-1].record_bytes
        rows.add(region, frames, records_at, records_end - records_at)
        zeros = int(np.count_nonzero(sizes == ZERO_SIZE))
        zero_clusters += zeros
        clusters += len(sizes) - zeros
        payload_bytes += int(sizes.sum(dtype=np.int64))
    if journal.problem or journal.footer is not None:
        raise ManifestInvalid(journal.problem or "the journal has a footer already")
    totals = LayerTotals(journal.frame_count, clusters, zero_clusters, payload_bytes)
    return totals, rows.finish()


def by_region(frames: Iterator[PlacedFrame]) -> Iterator[tuple[int, list[PlacedFrame]]]:
    """The frames of each region; the journal has them one behind the other."""
    for region, group in groupby(frames, key=lambda placed: placed.frame.region):
        yield region, list(group)


class _Rows:
    """Makes the table of regions: computed where this layer has clusters, the base's elsewhere."""

    def __init__(self, capacity_bytes: int, base: Sequence[SealedManifest]) -> None:
        self._capacity_bytes = capacity_bytes
        self._base = base
        self._rows: list[RegionTable] = []

    def add(
        self, region: int, frames: Sequence[FrameRecord], records_at: int, records_bytes: int
    ) -> None:
        """A region in which this layer has frames; or none, when it has to be computed anew."""
        view = RegionView(clusters_in_region(region, self._capacity_bytes))
        for age, manifest in reversed(list(enumerate(self._base, start=1))):
            view.overlay(manifest.frames(region), age)
        view.overlay(frames, 0)
        visible = view.visible()
        row = np.zeros(1, REGION_ROW)
        row["region"] = region
        row["visible_clusters"] = len(visible)
        row["visible_bytes"] = int(view.sizes[visible].sum(dtype=np.int64))
        row["records_at"] = records_at
        row["records_bytes"] = records_bytes
        row["digest"] = np.frombuffer(view.digest(), np.uint8)
        self._rows.append(row)

    def finish(self) -> RegionTable:
        """The table, ascending."""
        if self._base:
            self._inherit(self._base[0])
        table = np.concatenate([np.zeros(0, REGION_ROW), *self._rows])
        return table[np.argsort(table["region"], kind="stable")]

    def _inherit(self, base: SealedManifest) -> None:
        touched = np.array([int(row["region"][0]) for row in self._rows], np.uint32)
        inherited = base.footer.regions.copy()
        inherited = inherited[~np.isin(inherited["region"], touched)]
        if not len(inherited):
            return
        inherited["records_at"] = 0
        inherited["records_bytes"] = 0
        # A disk that grew: its base's last region has more clusters now, so
        # another digest even if nothing was written there.
        last = int(inherited["region"][-1])
        if clusters_in_region(last, base.capacity_bytes) != clusters_in_region(
            last, self._capacity_bytes
        ):
            self.add(last, [], 0, 0)
            inherited = inherited[:-1]
        self._rows.append(inherited)
