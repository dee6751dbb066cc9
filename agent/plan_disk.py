"""Deciding how a disk is read: what is told of it, checked first, and what the hub asks for.

Whatever cannot be believed costs reading, not correctness: changes that tracking
missed mean that the disk is compared with its base, a base that cannot be compared
with means that everything is sent again.
"""

from collections.abc import Sequence
from dataclasses import replace

import structlog

from agent.areas import Area, to_clusters
from agent.base_digests import BaseDigests
from agent.disk_checks import DiskChecks
from agent.errors import BaseUnusable
from agent.missed_changes import MissedChanges
from agent.read_plan import ReadPlan
from sendense.v1 import backup_pb2

_log = structlog.get_logger(__name__)


class DiskPlanner:
    """Plans of one disk of one job; used by one thread.

    The methods raise what reading the disk and asking the base do, but no BaseUnusable.
    """

    def __init__(self, checks: DiskChecks, capacity_bytes: int, missed: MissedChanges) -> None:
        self._checks = checks
        self._capacity = capacity_bytes
        self._missed = missed

    def allocated(self) -> ReadPlan:
        """All that may hold data."""
        return ReadPlan.allocated(self._checks.allocation())

    def compared(self, base: BaseDigests, reason: str = "") -> ReadPlan:
        """All that may hold data or that the base has; `reason` when tracking was to be used."""
        try:
            return replace(self._compared(base), reason=reason)
        except BaseUnusable as error:
            return self._full_instead(error)

    def changed(self, areas: Sequence[Area], base: BaseDigests) -> ReadPlan:
        """What tracking told of, or a comparison when a sample shows that it missed something."""
        areas = to_clusters(areas, self._capacity)
        sampling = None
        try:
            sampling = self._checks.tracking(areas, base, self._missed)
            if not sampling.clusters_missed:
                return replace(ReadPlan.changed(areas, base), sampling=sampling)
            reason = (
                f"changed block tracking missed {sampling.clusters_missed} of "
                f"{sampling.clusters_sampled} sampled clusters"
            )
            _log.warning("tracking_missed_changes", reason=reason)
            return replace(
                self._compared(base), reason=reason, sampling=sampling, missed=self._missed
            )
        except BaseUnusable as error:
            return self._full_instead(error, sampling)

    def _compared(self, base: BaseDigests) -> ReadPlan:
        return ReadPlan.compared(self._checks.allocation(), base, self._capacity)

    def _full_instead(
        self, error: BaseUnusable, sampling: backup_pb2.DiskSampling | None = None
    ) -> ReadPlan:
        return replace(
            self.allocated(),
            full_reason=f"the hub cannot tell what the last backup holds: {error}",
            sampling=sampling,
            missed=self._missed,
        )
