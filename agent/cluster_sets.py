"""Sets of a disk's clusters: asked for many members at a time, as a disk may have 2**30 of them."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from agent.areas import Area
from sendense.clusters import CLUSTER_BYTES


class ClusterSet:
    """The clusters of ascending, disjoint areas that begin on cluster boundaries. Immutable."""

    def __init__(self, areas: Sequence[Area]) -> None:
        self._firsts = np.array([a.start // CLUSTER_BYTES for a in areas], np.int64)
        self._ends = np.array([-(-a.end // CLUSTER_BYTES) for a in areas], np.int64)
        self._counts = np.cumsum(self._ends - self._firsts)

    def __len__(self) -> int:
        return int(self._counts[-1]) if len(self._counts) else 0

    def contains(self, numbers: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """For each cluster number whether it is in the set."""
        if not len(self._ends):
            return np.zeros(len(numbers), np.bool_)
        at = np.searchsorted(self._ends, numbers, side="right")
        firsts = self._firsts[np.minimum(at, len(self._firsts) - 1)]
        inside: npt.NDArray[np.bool_] = (at < len(self._ends)) & (firsts <= numbers)
        return inside

    def at(self, positions: Iterable[int]) -> list[int]:
        """The cluster numbers at these positions of the ascending set."""
        wanted = np.array(list(positions), np.int64)
        run = np.searchsorted(self._counts, wanted, side="right")
        return [int(n) for n in self._ends[run] - (self._counts[run] - wanted)]


def areas_of(numbers: Sequence[int] | npt.NDArray[np.integer], capacity_bytes: int) -> list[Area]:
    """Ascending cluster numbers as areas that do not touch, cut at the disk's end."""
    areas: list[Area] = []
    for first, end in runs_of(numbers):
        start = first * CLUSTER_BYTES
        areas.append(Area(start, min(end * CLUSTER_BYTES, capacity_bytes) - start))
    return areas


def runs_of(numbers: Sequence[int] | npt.NDArray[np.integer]) -> list[tuple[int, int]]:
    """Ascending numbers as runs: (first, one after the last)."""
    array = np.asarray(numbers, np.int64)
    if not len(array):
        return []
    breaks = np.flatnonzero(np.diff(array) != 1) + 1
    firsts = array[np.concatenate(([0], breaks))]
    lasts = array[np.concatenate((breaks, [len(array)])) - 1]
    return list(zip(firsts.tolist(), (lasts + 1).tolist(), strict=True))
