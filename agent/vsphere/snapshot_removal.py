"""Snapshots of the agent, removed: at a job's end, after a failure, and as leftovers."""

import threading

from tenacity import Retrying, retry_if_exception, wait_random_exponential
from tenacity.nap import sleep_using_event

from agent.vsphere.api import vim
from agent.vsphere.consolidation import consolidate, is_needed
from agent.vsphere.errors import (
    DisksNotConsolidated,
    PermissionMissing,
    SnapshotNotRemoved,
    VsphereError,
    VsphereFault,
    VsphereUnreachable,
)
from agent.vsphere.models import JobSnapshot, Leftover
from agent.vsphere.properties import NEVER_ENDED, TaskFailed
from agent.vsphere.session import VsphereSession, phrase
from agent.vsphere.snapshot_tree import NAME_PREFIX, is_of, snapshots_of
from agent.vsphere.tasks import TaskTurn, run_task

REMOVE_TIMEOUT_S = 4 * 3600.0
"""Removing merges everything that was written since: hours on a busy VM."""
REMOVE_UNREACHABLE_S = 900.0
"""Without any answer: then the caller tries again later, vSphere goes on by itself."""
_REMOVE_ATTEMPTS = 4


def morefs_by_name(session: VsphereSession, vm_moref: str, name: str) -> list[str]:
    """Of the VM's snapshots with this name; none when the VM is gone."""
    return [one.moref for one in snapshots_of(session, vm_moref) if one.name == name]


def remove_snapshot(
    session: VsphereSession,
    snapshot: JobSnapshot | Leftover,
    ended: threading.Event = NEVER_ENDED,
) -> None:
    """Remove a snapshot, merge its disks, and see that it is gone.

    A snapshot that is gone already is no error. `ended`, once set, ends the waits;
    a task that runs goes on in vSphere. Raises SnapshotNotRemoved.
    """
    try:
        remove_by_moref(session, snapshot.vm_moref, snapshot.moref, snapshot.name, ended)
    except SnapshotNotRemoved:
        raise
    except VsphereError as error:
        raise SnapshotNotRemoved(snapshot.name, snapshot.vm_moref, str(error)) from error


def remove_of_job(
    session: VsphereSession,
    vm_moref: str,
    job_id: str,
    owner: str,
    ended: threading.Event = NEVER_ENDED,
) -> None:
    """The same for whatever `owner` made for a job. Raises SnapshotNotRemoved, VsphereErrors."""
    for one in snapshots_of(session, vm_moref):
        if one.name == NAME_PREFIX + job_id and is_of(owner, one):
            remove_snapshot(session, Leftover(vm_moref, one.moref, one.name), ended)


def remove_by_moref(
    session: VsphereSession,
    vm_moref: str,
    moref: str,
    name: str,
    ended: threading.Event = NEVER_ENDED,
) -> None:
    """The same. Raises SnapshotNotRemoved, VsphereErrors.

    A task that was started is waited for until it ended or `REMOVE_TIMEOUT_S`
    are over, whatever becomes of the connection (see `wait_for_task`), and so
    is another task at the VM. Only what ended without success is tried again, and
    not a consolidation: each try may copy a disk, and what holds its files holds on.
    """
    turn = TaskTurn(REMOVE_TIMEOUT_S, REMOVE_UNREACHABLE_S, ended)
    # A file that is still locked by a reader that just closed passes;
    # removing what is gone already changes nothing.
    attempts = Retrying(
        retry=retry_if_exception(_may_pass),
        stop=lambda state: (
            session.closed or ended.is_set() or state.attempt_number >= _REMOVE_ATTEMPTS
        ),
        wait=wait_random_exponential(multiplier=1, max=30),
        sleep=sleep_using_event(ended),
        reraise=True,
    )
    attempts(_remove_once, session, vm_moref, moref, name, turn)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, DisksNotConsolidated):
        return False
    return isinstance(error, SnapshotNotRemoved | VsphereUnreachable)


def _remove_once(
    session: VsphereSession, vm_moref: str, moref: str, name: str, turn: TaskTurn
) -> None:
    snapshot = vim.vm.Snapshot(moref, session.stub)
    problem, known_gone = "the task ended well, the snapshot is still there", False
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
        problem, known_gone = str(error), error.is_object_gone
    try:
        stands = moref in [one.moref for one in snapshots_of(session, vm_moref)]
    except (VsphereFault, PermissionMissing) as error:
        # A VM whose snapshots are not shown has not none.
        stands = not known_gone
        problem = f"{problem}, or may be: {error}"
    if stands:
        raise SnapshotNotRemoved(name, vm_moref, problem)
    not_merged = _merge(session, vm_moref, turn)
    if not_merged:
        raise DisksNotConsolidated(name, vm_moref, not_merged)


def merge_disks(
    session: VsphereSession, vm_moref: str, ended: threading.Event = NEVER_ENDED
) -> str:
    """Merge what removals at this VM left as it was; returns why it is not merged, or nothing.

    Waits as a removal does. Raises TaskTimedOut, VsphereErrors.
    """
    return _merge(session, vm_moref, TaskTurn(REMOVE_TIMEOUT_S, REMOVE_UNREACHABLE_S, ended))


def _merge(session: VsphereSession, vm_moref: str, turn: TaskTurn) -> str:
    return consolidate(session, vm_moref, turn) if is_needed(session, vm_moref) else ""
