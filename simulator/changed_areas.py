"""What QueryChangedDiskAreas is answered with, before it is cut into slices."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.disks.disk import SimulatedDisk
from simulator.disks.link import GRAIN, Link
from simulator.disks.tracking import ChangeId, ChangeTracking
from simulator.snapshots import OperationRefused, Snapshot


@dataclass(frozen=True, slots=True)
class ChangedArea:
    """`length` changed bytes from byte offset `start`."""

    start: int
    length: int


@dataclass(frozen=True)
class TrackedDisk:
    """A disk whose changes are asked for: up to a snapshot's change id, or up to now (None)."""

    disk: SimulatedDisk
    capacity_bytes: int
    tracking: ChangeTracking
    until: ChangeId | None
    link: Link


def tracked_disk(snapshot: Snapshot, key: int) -> TrackedDisk:
    """A disk as a snapshot froze it. Raises OperationRefused."""
    for frozen in snapshot.disks:
        if frozen.key == key:
            if frozen.tracking is None or frozen.change_id is None:
                raise OperationRefused("FileFault", "change tracking is not active")
            return TrackedDisk(
                frozen.disk,
                frozen.capacity_bytes,
                frozen.tracking,
                frozen.change_id,
                snapshot.links[key],
            )
    if any(disk.key == key for disk in snapshot.others):
        raise OperationRefused("FileFault", "the disk is not part of the snapshot")
    raise OperationRefused("InvalidArgument", "deviceKey")


def changed_areas(asked: TrackedDisk, start: int, change_id: str, star: str) -> list[ChangedArea]:
    """All areas from `start` on that changed since a change id. Raises OperationRefused.

    `star` is what change id `*` answers: "allocated", "whole" or "fault".
    """
    if not 0 <= start < asked.capacity_bytes:
        raise OperationRefused("FileFault", f"startOffset {start} is past the disk's end")
    if change_id == "*":
        if star == "fault":
            raise OperationRefused("FileFault", "allocated areas are not known")
        allocated = asked.disk.allocated(asked.link)
        grains = np.flatnonzero(allocated | (star == "whole"))
    else:
        grains = _changed_grains(asked, change_id)
    return _areas(grains, start, asked.capacity_bytes)


def _changed_grains(asked: TrackedDisk, change_id: str) -> npt.NDArray[np.int64]:
    base = ChangeId.parse(change_id)
    found: npt.NDArray[np.int64] | None = None
    if base is not None:
        with asked.disk.lock:
            found = (
                asked.tracking.changed_since(base)
                if asked.until is None
                else asked.tracking.changed_between(base, asked.until)
            )
    if found is None:
        raise OperationRefused("FileFault", f"change id {change_id!r} is not known")
    return found


def _areas(grains: npt.NDArray[np.int64], start: int, capacity: int) -> list[ChangedArea]:
    indices = grains[(grains + 1) * GRAIN > start]
    if not len(indices):
        return []
    breaks = np.flatnonzero(np.diff(indices) != 1)
    firsts = indices[np.concatenate(([0], breaks + 1))] * GRAIN
    ends = np.minimum((indices[np.concatenate((breaks, [len(indices) - 1]))] + 1) * GRAIN, capacity)
    firsts = np.maximum(firsts, start)
    return [
        ChangedArea(int(first), int(end - first)) for first, end in zip(firsts, ends, strict=True)
    ]
