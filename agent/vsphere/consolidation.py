"""Merging disks whose snapshots are gone while their files are still there."""

from agent.vsphere.api import vim
from agent.vsphere.errors import PermissionMissing, TaskTimedOut, VsphereFault
from agent.vsphere.models import Warning
from agent.vsphere.properties import TaskFailed, properties_of
from agent.vsphere.session import VsphereSession, phrase
from agent.vsphere.tasks import TaskTurn, run_task

CONSOLIDATION_FAILED = "CONSOLIDATION_FAILED"
BEFORE_SNAPSHOT_S = 900.0
"""A job waits this long; a consolidation that takes longer goes on, the backup is tried again."""


def consolidate_before_snapshot(session: VsphereSession, vm_moref: str) -> Warning | None:
    """Merge what earlier removals left, so that the job's snapshot does not add to it.

    What stands against it is a warning: the snapshot may succeed all the same.
    Raises VsphereErrors when vSphere cannot be talked to at all.
    """
    try:
        problem = consolidate(session, vm_moref, TaskTurn(BEFORE_SNAPSHOT_S))
    except (VsphereFault, PermissionMissing, TaskTimedOut) as error:
        problem = str(error)
    return _failed(problem) if problem else None


def _failed(why: str) -> Warning:
    return Warning(
        CONSOLIDATION_FAILED,
        "the VM's disks need consolidation, as files of removed snapshots are still there, and it "
        f"failed: {why}; see what holds the files, such as another backup, and consolidate in "
        "vSphere",
    )


def is_needed(session: VsphereSession, vm_moref: str) -> bool:
    """Whether vSphere says so; False of a VM that is gone. Raises VsphereErrors."""
    vm = vim.VirtualMachine(vm_moref, session.stub)
    try:
        values = session.run(
            "see whether disks need consolidation",
            lambda: properties_of(session, vm, ["runtime.consolidationNeeded"]),
            repeatable=True,
        )
    except VsphereFault as error:
        if error.is_object_gone:
            return False
        raise
    return bool(values.get("runtime.consolidationNeeded"))


def consolidate(session: VsphereSession, vm_moref: str, turn: TaskTurn) -> str:
    """Merge them; returns why they are not merged, or nothing. Raises TaskTimedOut, VsphereErrors."""
    vm = vim.VirtualMachine(vm_moref, session.stub)
    try:
        run_task(session, "consolidate the VM's disks", vm.ConsolidateVMDisks_Task, turn)
    except TaskFailed as error:
        return phrase(error.fault)
    except VsphereFault as error:
        if error.is_object_gone:
            return ""
        raise
    if is_needed(session, vm_moref):
        return "vSphere's task ended well, but they still need it"
    return ""
