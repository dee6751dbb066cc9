"""Deciding how a disk is read: what is told of it, checked first, and what the hub asks for.

Whatever cannot be believed costs reading, not correctness: changes that tracking missed
mean that the disk is compared with its base, clusters that are wrongly called unallocated
that the whole disk is read, a base that cannot be compared with that everything is sent
again. What tracking told of is read in any case.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from agent.areas import Area, merge, to_clusters
from agent.base_digests import BaseDigests
from agent.disk_checks import DiskChecks, Found
from agent.errors import BaseUnusable
from agent.missed_changes import MissedChanges
from agent.read_plan import ReadPlan

_log = structlog.get_logger(__name__)


class DiskPlanner:
    """Plans of one disk of one job; used by one thread.

    The methods raise what reading the disk and asking the base do, but no BaseUnusable.
    """

    def __init__(self, checks: DiskChecks, capacity_bytes: int, missed: MissedChanges) -> None:
        self._checks = checks
        self._capacity = capacity_bytes
        self._missed = missed
        self._told: list[Area] = []  # by tracking, when it was asked

    def allocated(self) -> ReadPlan:
        """All that may hold data."""
        return self._checked(lambda: ReadPlan.allocated(self._maybe_data()))

    def compared(self, base: BaseDigests, reason: str = "") -> ReadPlan:
        """All that may hold data or that the base has; `reason` when tracking was to be used."""
        try:
            return replace(self._compared(base), reason=reason)
        except BaseUnusable as error:
            return self._full_instead(error)

    def changed(self, areas: Sequence[Area], base: BaseDigests) -> ReadPlan:
        """What tracking told of, or a comparison when the check of the rest found something."""
        self._told = to_clusters(areas, self._capacity)
        try:
            plan = ReadPlan.changed(self._told, base)
            found = self._checks.check(plan)
            self._missed.sampled(self._told, found.differing)
            reason = _doubts(found)
            if not reason:
                return self._told_of(plan)
            _log.warning("tracking_not_used", reason=reason)
            return replace(self._compared(base), reason=reason, missed=self._missed)
        except BaseUnusable as error:
            return self._full_instead(error)

    def _compared(self, base: BaseDigests) -> ReadPlan:
        return self._checked(lambda: ReadPlan.compared(self._maybe_data(), base, self._capacity))

    def _full_instead(self, error: BaseUnusable) -> ReadPlan:
        return replace(
            self.allocated(),
            full_reason=f"the hub cannot tell what the last backup holds: {error}",
            missed=self._missed,
        )

    def _checked(self, planned: Callable[[], ReadPlan]) -> ReadPlan:
        """A plan of all that may hold data, made anew when that turns out to be more."""
        plan = planned()
        while len(self._checks.check(plan).differing):
            # What differs has data, and the host called it unallocated: now the whole
            # disk may hold data, and the next plan leaves nothing out.
            plan = planned()
        return self._told_of(plan)

    def _maybe_data(self) -> list[Area]:
        return merge([*self._checks.allocation(), *self._told])

    def _told_of(self, plan: ReadPlan) -> ReadPlan:
        return replace(plan, sampling=self._checks.sampling(self._missed.count))


def _doubts(found: Found) -> str:
    """Why tracking is not enough, after the check of what it called unchanged; "" if it is."""
    doubts = []
    if found.allocation_wrong:
        doubts.append("the host called clusters unallocated that hold data")
    if len(found.differing):
        doubts.append(
            f"changed block tracking missed {len(found.differing)} of {found.sampled} "
            "sampled clusters"
        )
    return "; ".join(doubts)
