"""Snapshots of the agent, removed: at a job's end, after a failure, and as leftovers."""

from tenacity import Retrying, retry_if_exception_type, wait_random_exponential

from agent.vsphere.api import vim
from agent.vsphere.consolidation import consolidate, is_needed
from agent.vsphere.errors import (
    DisksNotConsolidated,
    SnapshotNotRemoved,
    VsphereError,
    VsphereFault,
    VsphereUnreachable,
)
from agent.vsphere.models import JobSnapshot, Leftover
from agent.vsphere.properties import TaskFailed
from agent.vsphere.session import VsphereSession, phrase
from agent.vsphere.snapshot_tree import snapshots_of
from agent.vsphere.tasks import TaskTurn, run_task

REMOVE_TIMEOUT_S = 4 * 3600.0
"""Removing merges everything that was written since: hours on a busy VM."""
REMOVE_UNREACHABLE_S = 900.0
"""Without any answer: then the caller tries again later, vSphere goes on by itself."""
_REMOVE_ATTEMPTS = 4


def morefs_by_name(session: VsphereSession, vm_moref: str, name: str) -> list[str]:
    """Of the VM's snapshots with this name; none when the VM is gone."""
    return [one.moref for one in snapshots_of(session, vm_moref) if one.name == name]


def remove_snapshot(session: VsphereSession, snapshot: JobSnapshot | Leftover) -> None:
    """Remove a snapshot, merge its disks, and see that it is gone.

    A snapshot that is gone already is no error. Raises SnapshotNotRemoved.
    """
    try:
        remove_by_moref(session, snapshot.vm_moref, snapshot.moref, snapshot.name)
    except SnapshotNotRemoved:
        raise
    except VsphereError as error:
        raise SnapshotNotRemoved(snapshot.name, snapshot.vm_moref, str(error)) from error


def remove_by_moref(session: VsphereSession, vm_moref: str, moref: str, name: str) -> None:
    """The same. Raises SnapshotNotRemoved, VsphereErrors.

    A task that was started is waited for until it ended or `REMOVE_TIMEOUT_S`
    are over, whatever becomes of the connection (see `wait_for_task`), and so
    is another task at the VM. Only what ended without success is tried again.
    """
    turn = TaskTurn(REMOVE_TIMEOUT_S, REMOVE_UNREACHABLE_S)
    # A file that is still locked by a reader that just closed passes;
    # removing what is gone already changes nothing.
    attempts = Retrying(
        retry=retry_if_exception_type((SnapshotNotRemoved, VsphereUnreachable)),
        stop=lambda state: session.closed or state.attempt_number >= _REMOVE_ATTEMPTS,
        wait=wait_random_exponential(multiplier=1, max=30),
        reraise=True,
    )
    attempts(_remove_once, session, vm_moref, moref, name, turn)


def _remove_once(
    session: VsphereSession, vm_moref: str, moref: str, name: str, turn: TaskTurn
) -> None:
    snapshot = vim.vm.Snapshot(moref, session.stub)
    problem = "the task ended well, the snapshot is still there"
    try:
        run_task(
            session,
            f"remove snapshot {name}",
            lambda: snapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=True),
            turn,
        )
    except TaskFailed as error:
        problem = phrase(error.fault)
    except VsphereFault as error:
        problem = str(error)
    if moref in [one.moref for one in snapshots_of(session, vm_moref)]:
        raise SnapshotNotRemoved(name, vm_moref, problem)
    _consolidate(session, vm_moref, name, turn)


def _consolidate(session: VsphereSession, vm_moref: str, name: str, turn: TaskTurn) -> None:
    """Merge disks that the removal left as they were. Raises DisksNotConsolidated, VsphereErrors."""
    if not is_needed(session, vm_moref):
        return
    problem = consolidate(session, vm_moref, turn)
    if problem:
        raise DisksNotConsolidated(name, vm_moref, problem)
