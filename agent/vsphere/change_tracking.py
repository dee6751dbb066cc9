"""Changed block tracking: switching it on, and asking what changed."""

import time
from functools import partial
from typing import Any

from agent.areas import Area
from agent.cancellation import NEVER_CANCELLED, Cancellation
from agent.vsphere.api import vim
from agent.vsphere.errors import (
    ChangeTrackingUnusable,
    PermissionMissing,
    TaskTimedOut,
    VsphereFault,
)
from agent.vsphere.frozen import require_frozen
from agent.vsphere.models import FrozenDisk, JobSnapshot, Warning
from agent.vsphere.properties import TaskFailed
from agent.vsphere.session import VsphereSession, phrase
from agent.vsphere.tasks import TaskTurn, run_task

RECONFIGURE_TIMEOUT_S = 300.0
QUESTION_S = 300.0
"""All slices of one disk: hosts tell it within seconds. One that answers in slices of a few
sectors would be asked for hours, while the snapshot grows; reading the disk is faster."""
NOT_ENABLED = "CHANGE_TRACKING_NOT_ENABLED"


def enable(
    session: VsphereSession,
    vm: Any,
    *,
    vm_name: str,
    supported: bool,
    snapshot_count: int,
    is_merged: bool,
) -> Warning | None:
    """Switch tracking on, after other tasks at the VM; it takes effect at the next snapshot.

    Whatever stands against it is a warning: the backup goes on, reading
    everything. While the VM has snapshots, or disks in pieces that snapshots left
    (not `is_merged`), tracking is left off, as switching it on then is known to
    corrupt what it tells. Raises VsphereErrors when vSphere cannot be talked to at all.
    """
    if not supported:
        return _not_enabled("the VM's hardware version does not support it: upgrade it")
    if snapshot_count:
        return _not_enabled(
            f"the VM has {snapshot_count} snapshot{'s' if snapshot_count > 1 else ''}: "
            "remove them, then the next backup enables it"
        )
    if not is_merged:
        return _not_enabled(
            "the VM's disks need consolidation, and it failed: consolidate them in vSphere, then "
            "the next backup enables it"
        )
    doing = f"enable changed block tracking of {vm_name}"
    spec = vim.vm.ConfigSpec(changeTrackingEnabled=True)
    try:
        turn = TaskTurn(RECONFIGURE_TIMEOUT_S)
        run_task(session, doing, lambda: vm.ReconfigVM_Task(spec), turn)
    except TaskFailed as error:
        return _not_enabled(phrase(error.fault))
    except (VsphereFault, PermissionMissing, TaskTimedOut) as error:
        return _not_enabled(str(error))
    return None


def _not_enabled(why: str) -> Warning:
    return Warning(
        NOT_ENABLED, f"changed block tracking is off, every backup reads everything; {why}"
    )


def changed_areas(
    session: VsphereSession,
    snapshot: JobSnapshot,
    disk: FrozenDisk,
    base_change_id: str,
    cancellation: Cancellation = NEVER_CANCELLED,
) -> list[Area]:
    """What changed between the base's change id and the snapshot, all slices of it.

    Ascending, disjoint, inside the capacity. Raises ChangeTrackingUnusable
    when the answer is refused, cannot be right or takes longer than QUESTION_S,
    SnapshotVanished, VsphereErrors, the error of `cancellation` between two slices.
    """
    _check_ids(disk, base_change_id)
    vm = vim.VirtualMachine(snapshot.vm_moref, session.stub)
    frozen = vim.vm.Snapshot(snapshot.moref, session.stub)

    areas: list[Area] = []
    offset = 0
    doing = f"tell what changed on {disk.label} of VM {snapshot.vm_moref}"
    end_s = time.monotonic() + QUESTION_S
    while offset < disk.capacity_bytes:
        cancellation.check()
        ask = partial(vm.QueryChangedDiskAreas, frozen, disk.key, offset, base_change_id)
        try:
            answer = session.run(doing, ask, repeatable=True)
        except (VsphereFault, PermissionMissing) as error:
            if isinstance(error, VsphereFault) and error.is_object_gone:
                require_frozen(session, snapshot)  # else there is nothing to compare either
            # Stale id, reset, untracked disk: vSphere has one fault for all of them.
            raise ChangeTrackingUnusable(disk.label, str(error)) from error
        offset = _add_slice(areas, answer, offset, disk)
        if offset < disk.capacity_bytes and time.monotonic() >= end_s:
            told = f"vSphere told of {offset} of {disk.capacity_bytes} bytes in {QUESTION_S:g} s"
            raise ChangeTrackingUnusable(disk.label, f"{told}, which is too slow")
    return areas


def _check_ids(disk: FrozenDisk, base_change_id: str) -> None:
    if not disk.change_id:
        raise ChangeTrackingUnusable(disk.label, "the disk is not tracked")
    base, now = _parsed(disk, base_change_id), _parsed(disk, disk.change_id)
    if base[0] != now[0]:
        raise ChangeTrackingUnusable(disk.label, "tracking was reset since the last backup")
    if base[1] > now[1]:
        raise ChangeTrackingUnusable(disk.label, "the disk went back to an earlier state")


def _parsed(disk: FrozenDisk, change_id: str) -> tuple[str, int]:
    """`<uuid>/<sequence>`; the uuid changes when tracking is reset."""
    epoch, slash, sequence = change_id.rpartition("/")
    if not slash or not sequence.isdecimal():
        raise ChangeTrackingUnusable(disk.label, f"{change_id!r} is no change id")
    return epoch, int(sequence)


def _add_slice(areas: list[Area], answer: Any, offset: int, disk: FrozenDisk) -> int:
    """Check one slice, add its areas (adjacent ones merge); returns where the next begins."""

    def require(right: bool, what: str) -> None:
        if not right:
            raise ChangeTrackingUnusable(disk.label, f"vSphere's answer cannot be right: {what}")

    start, length = int(answer.startOffset), int(answer.length)
    require(start == offset, f"asked from {offset}, answered from {start}")
    require(length > 0, f"an empty slice at {start}")
    end = min(start + length, disk.capacity_bytes)
    for changed in answer.changedArea or []:
        area = Area(int(changed.start), int(changed.length))
        require(area.length > 0, f"an empty area at {area.start}")
        require(area.start >= offset and area.end <= end, f"{area} is outside {offset}..{end}")
        if areas and area.start <= areas[-1].end:
            require(area.start == areas[-1].end, f"{area} is not after {areas[-1]}")
            area = Area(areas[-1].start, areas[-1].length + area.length)
            areas.pop()
        areas.append(area)
    return end
