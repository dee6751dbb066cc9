"""What the host and changed block tracking tell of a disk, checked by reading a sample of it."""

from collections.abc import Callable

import numpy as np
import structlog

from agent.areas import Area, by_region, split_extents, to_clusters, whole_disk
from agent.base_digests import BaseDigests
from agent.cluster_sets import ClusterSet, areas_of
from agent.digest_words import differ
from agent.disk_reads import DiskReads
from agent.job_warnings import JobWarnings
from agent.missed_changes import MissedChanges
from agent.sampling import (
    Sample,
    SampleSettings,
    choose_sample,
    choose_unallocated,
    undetected_bound,
)
from agent.transports.errors import AllocationUnknown
from sendense.clusters import CLUSTER_BYTES, ZERO_DIGEST, cluster_digest
from sendense.v1 import backup_pb2

_log = structlog.get_logger(__name__)


class DiskChecks:
    """Checks of one disk of one job; used by one thread, which may read from `reads`."""

    def __init__(
        self,
        reads: DiskReads,
        *,
        job_id: str,
        disk_index: int,
        label: str,
        settings: SampleSettings,
        warnings: JobWarnings,
    ) -> None:
        self._reads = reads
        self._job_id = job_id
        self._disk_index = disk_index
        self._label = label
        self._settings = settings
        self._warnings = warnings
        self._capacity = reads.capacity_bytes
        self._allocation: list[Area] | None = None  # whole clusters; None: not asked for yet
        self._allocation_checked = False

    def allocation(self) -> list[Area]:
        """The clusters that may hold data, as areas; what is left out was sampled and is zeros.

        The whole disk when the host does not tell, or tells what is not so, which is
        warned of. Raises what reading does.
        """
        if not self._allocation_checked:
            self._read_sample(
                lambda allocated: choose_unallocated(
                    self._job_id, self._disk_index, allocated, self._capacity, self._settings
                )
            )
        return self._asked_allocation()

    def tracking(
        self, changed: list[Area], base: BaseDigests, missed: MissedChanges
    ) -> backup_pb2.DiskSampling:
        """Compare a sample of what is not in `changed` (areas.to_clusters) with the base.

        Tells `missed` of the clusters that differ. Raises what reading and asking do.
        """
        sample, digests = self._read_sample(
            lambda allocated: choose_sample(
                self._job_id, self._disk_index, changed, allocated, self._capacity, self._settings
            )
        )
        areas = by_region(areas_of(sample.clusters, self._capacity))
        held = b"".join([digests for _, digests in base.ask(areas)])
        differing = np.array(sample.clusters, np.int64)[differ(digests, held)]
        missed.sampled(changed, differing)
        return backup_pb2.DiskSampling(
            clusters_sampled=len(sample.clusters),
            clusters_drawn_from=sample.population,
            # After a miss everything is compared: nothing stays undetected.
            undetected_clusters_bound=1
            if len(differing)
            else undetected_bound(sample.population, sample.drawn_evenly),
            clusters_missed=len(differing),
        )

    def _read_sample(self, choose: Callable[[list[Area]], Sample]) -> tuple[Sample, bytes]:
        """A sample chosen with the allocation, and its clusters' digests.

        When one that is called unallocated holds data, the whole disk counts as
        allocated from then on, and the sample is chosen anew.
        """
        while True:
            allocation = self._asked_allocation()
            sample = choose(allocation)
            digests = self._digests_of(areas_of(sample.clusters, self._capacity))
            self._allocation_checked = True
            numbers = np.array(sample.clusters, np.int64)
            outside = ~ClusterSet(allocation).contains(numbers)
            wrong = numbers[outside & differ(digests, ZERO_DIGEST)]
            if not len(wrong):
                return sample, digests
            self._warnings.add(
                "ALLOCATION_WRONG",
                f"{self._label}: of {np.count_nonzero(outside)} sampled clusters that the host "
                f"calls unallocated {len(wrong)} hold data, the first at byte "
                f"{int(wrong[0]) * CLUSTER_BYTES}; the whole disk counts as allocated",
                self._label,
            )
            self._allocation = whole_disk(self._capacity)

    def _asked_allocation(self) -> list[Area]:
        if self._allocation is None:
            try:
                areas = self._reads.allocated_areas()
            except AllocationUnknown as error:
                _log.warning("allocation_unknown", disk=self._label, reason=str(error))
                areas = whole_disk(self._capacity)
            self._allocation = to_clusters(areas, self._capacity)
        return self._allocation

    def _digests_of(self, areas: list[Area]) -> bytes:
        """Read these clusters; 16 bytes for each."""
        digests: list[bytes] = []
        for extent in self._reads.read(split_extents(areas)):
            for start in range(0, len(extent.data), CLUSTER_BYTES):
                cluster = extent.data[start : start + CLUSTER_BYTES]
                digests.append(cluster_digest(cluster.ljust(CLUSTER_BYTES, b"\0")))
        return b"".join(digests)
