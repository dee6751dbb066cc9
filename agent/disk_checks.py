"""What the host and changed block tracking tell of a disk, checked by reading some of the rest."""

from dataclasses import dataclass

import numpy as np
import structlog

from agent.areas import Area, by_region, split_extents, to_clusters, whole_disk
from agent.cluster_sets import ClusterSet, areas_of
from agent.digest_words import differ
from agent.disk_reads import DiskReads
from agent.job_warnings import JobWarnings
from agent.missed_changes import Numbers
from agent.read_plan import ReadPlan
from agent.sampling import (
    Sample,
    SampleSettings,
    Unread,
    choose_sample,
    undetected_bound,
)
from agent.transports.errors import AllocationUnknown
from sendense.clusters import CLUSTER_BYTES, ZERO_DIGEST, cluster_digest
from sendense.v1 import backup_pb2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What one check found among so many sampled clusters."""

    sampled: int
    differing: Numbers
    """Sampled clusters that are not what a restore would have there; ascending."""
    allocation_wrong: bool
    """One that the host calls unallocated holds data."""


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
        self._sampled: set[int] = set()
        self._last = Sample([], ())

    def allocation(self) -> list[Area]:
        """The clusters that may hold data, as areas (areas.to_clusters).

        The whole disk when the host does not tell, or tells what was found wrong. Raises
        what reading does.
        """
        if self._allocation is None:
            try:
                areas = self._reads.allocated_areas()
            except AllocationUnknown as error:
                _log.warning("allocation_unknown", disk=self._label, reason=str(error))
                areas = whole_disk(self._capacity)
            self._allocation = to_clusters(areas, self._capacity)
        return self._allocation

    def check(self, plan: ReadPlan) -> Found:
        """Compare a sample of what a plan does not read with what a restore would have there.

        An allocation that is found wrong is warned of, and the whole disk counts as
        allocated from then on. Raises what reading and asking the base do.
        """
        allocation = self.allocation()
        sample = choose_sample(
            self._job_id,
            self._disk_index,
            backup_pb2.ReadMethod.Name(plan.method),
            Unread.beside(plan.areas, allocation, self._capacity),
            self._settings,
        )
        self._last = sample
        self._sampled.update(sample.clusters)
        numbers = np.array(sample.clusters, np.int64)
        areas = areas_of(sample.clusters, self._capacity)
        digests = self._digests_of(areas)
        outside = ~ClusterSet(allocation).contains(numbers)
        wrong = numbers[outside & differ(digests, ZERO_DIGEST)]
        if len(wrong):
            self._warn_of_allocation(int(outside.sum()), wrong)
            self._allocation = whole_disk(self._capacity)
        differing = numbers[differ(digests, _left_out(plan, areas))]
        return Found(len(numbers), differing, bool(len(wrong)))

    def sampling(self, missed: int) -> backup_pb2.DiskSampling:
        """What the hub is told when the last check found nothing, and those before it `missed`."""
        return backup_pb2.DiskSampling(
            clusters_sampled=len(self._sampled),
            clusters_drawn_from=self._last.population,
            undetected_clusters_bound=undetected_bound(self._last.draws),
            clusters_missed=missed,
        )

    def _warn_of_allocation(self, sampled: int, wrong: Numbers) -> None:
        self._warnings.add(
            "ALLOCATION_WRONG",
            f"{self._label}: of {sampled} sampled clusters that the host calls unallocated "
            f"{len(wrong)} hold data, the first at byte {int(wrong[0]) * CLUSTER_BYTES}; "
            "the whole disk is read, and earlier backups may lack such clusters",
            self._label,
        )

    def _digests_of(self, areas: list[Area]) -> bytes:
        """Read these clusters; 16 bytes for each."""
        digests: list[bytes] = []
        for extent in self._reads.read(split_extents(areas)):
            for start in range(0, len(extent.data), CLUSTER_BYTES):
                cluster = extent.data[start : start + CLUSTER_BYTES]
                digests.append(cluster_digest(cluster.ljust(CLUSTER_BYTES, b"\0")))
        return b"".join(digests)


def _left_out(plan: ReadPlan, areas: list[Area]) -> bytes:
    """Digests of what a restore has where a plan does not read; one for all where all are zeros."""
    if plan.method != backup_pb2.READ_METHOD_CHANGED or plan.base is None:
        return ZERO_DIGEST  # the base, if there is one, has data nowhere but where it is read
    return b"".join([digests for _, digests in plan.base.ask(by_region(areas))])
