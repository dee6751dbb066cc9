"""How a disk is read in fact: what the agent says at the start of its upload, held against the plan."""

from dataclasses import dataclass

from hub.catalog.models import BackupDisk, WarningFacts
from hub.catalog.open_job import compared_warning, full_instead_warning
from hub.errors import ProtocolViolation
from hub.jobs.states import ReadMethod


@dataclass(frozen=True, slots=True)
class ReadInFact:
    """How, and why so ("" when it is the plan's usual way); a warning where the plan was left."""

    method: ReadMethod
    reason: str
    warning: WarningFacts | None = None


def read_in_fact(
    disk: BackupDisk,
    *,
    method: ReadMethod | None,
    reason: str,
    full_instead: bool,
    full_reason: str,
    clusters_missed: int,
) -> ReadInFact:
    """`method` None means as planned. `clusters_missed` is what a sample found.

    Only two plans may be left: an increment for a full, when its base cannot be
    built on, and tracking for a comparison. The agent warns by itself of changes that
    tracking missed. Raises ProtocolViolation.
    """
    planned = disk.read_method
    # A row without one is from before it was recorded, and its job has ended.
    assert planned is not None
    if full_instead:
        return _full(disk, method, full_reason)
    method = method or planned
    if method is not planned:
        if (planned, method) != (ReadMethod.CHANGED, ReadMethod.COMPARED):
            raise _violation(disk, f"was planned to be {planned}, and is {method}")
        reason = reason or "changed block tracking could not be used"
        warning = None if clusters_missed else compared_warning(disk.label, reason)
        return ReadInFact(method, reason, warning)
    if clusters_missed and method is ReadMethod.CHANGED:
        raise _violation(disk, f"has {clusters_missed} missed clusters, and is still {method}")
    return ReadInFact(method, disk.read_reason or "")


def _full(disk: BackupDisk, method: ReadMethod | None, reason: str) -> ReadInFact:
    if method not in (None, ReadMethod.ALLOCATED):
        raise _violation(disk, f"is sent in full, but {method}")
    if disk.base_disk_id is None:
        return ReadInFact(ReadMethod.ALLOCATED, disk.read_reason or "")
    reason = reason or "the last backup cannot be built on"
    return ReadInFact(ReadMethod.ALLOCATED, reason, full_instead_warning(disk.label, reason))


def _violation(disk: BackupDisk, problem: str) -> ProtocolViolation:
    return ProtocolViolation(f"disk {disk.disk_index} of {disk.backup_job_id} {problem}")
