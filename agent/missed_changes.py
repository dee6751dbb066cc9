"""Clusters that changed although changed block tracking called them unchanged: counted and told."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from agent.areas import Area
from agent.cluster_sets import ClusterSet, runs_of
from sendense.clusters import CLUSTER_BYTES

AREAS_TOLD: Final = 20

Numbers = npt.NDArray[np.integer]


class MissedChanges:
    """What one disk's sample found, and then the comparison of all of it. Not thread-safe."""

    def __init__(self) -> None:
        self._changed = ClusterSet([])
        self._sampled = _Told()
        self._compared = _Told()
        self._compared_through = -1

    @property
    def count(self) -> int:
        """Missed clusters known of. The comparison finds those of the sample again."""
        return max(self._sampled.count, self._compared.count)

    def sampled(self, changed: Sequence[Area], differing: Numbers) -> None:
        """The sample's outcome: `changed` (areas.to_clusters) is what tracking told of."""
        self._changed = ClusterSet(changed)
        self._sampled.add(differing)

    def compared(self, differing: Numbers) -> None:
        """Some clusters that differ from the base; ascending, also from call to call.

        What comes again, because an upload is resumed, counts once.
        """
        news = differing[differing > self._compared_through]
        if len(news):
            self._compared_through = int(news[-1])
            self._compared.add(news[~self._changed.contains(news)])

    def told_of(self, disk_label: str) -> str:
        """One sentence: how many, and the first areas as guest bytes."""
        told = max(self._sampled, self._compared, key=lambda told: told.count)
        return (
            f"{disk_label}: changed block tracking missed {told.count} clusters of 64 KiB: "
            f"areas {told.text()}; the whole disk was read to find what changed"
        )


class _Told:
    """Ascending clusters, of which the first runs are kept: memory does not grow with them."""

    def __init__(self) -> None:
        self.count = 0
        self._first_runs: list[tuple[int, int]] = []
        self._run_count = 0
        self._end = -1

    def add(self, numbers: Numbers) -> None:
        self.count += len(numbers)
        for first, end in runs_of(numbers):
            if first != self._end:
                self._run_count += 1
                if self._run_count <= AREAS_TOLD:
                    self._first_runs.append((first, end))
            elif self._run_count <= AREAS_TOLD:
                self._first_runs[-1] = (self._first_runs[-1][0], end)
            self._end = end

    def text(self) -> str:
        told = ", ".join(
            f"{first * CLUSTER_BYTES}-{end * CLUSTER_BYTES}" for first, end in self._first_runs
        )
        more = self._run_count - len(self._first_runs)
        return f"{told} (+{more} more)" if more else told
