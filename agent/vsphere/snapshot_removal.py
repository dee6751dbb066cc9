"""Snapshots of the agent, removed: at a job's end, after a failure, and as leftovers."""

import time
from collections.abc import Callable
from typing import Any

from tenacity import Retrying, retry_if_exception_type, wait_random_exponential

from agent.vsphere.api import vim
from agent.vsphere.devices import unescaped
from agent.vsphere.errors import (
    SnapshotNotRemoved,
    TaskTimedOut,
    VsphereError,
    VsphereFault,
    VsphereUnreachable,
)
from agent.vsphere.inventory import snapshots_in
from agent.vsphere.models import JobSnapshot, Leftover
from agent.vsphere.properties import TaskFailed, properties_of, wait_for_task
from agent.vsphere.session import VsphereSession, phrase

REMOVE_TIMEOUT_S = 4 * 3600.0
"""Removing merges everything that was written since: hours on a busy VM."""
REMOVE_UNREACHABLE_S = 900.0
"""Without any answer: then the caller tries again later, vSphere goes on by itself."""
_REMOVE_ATTEMPTS = 4


def _snapshot_nodes(session: VsphereSession, vm_moref: str) -> list[Any]:
    """The VM's snapshots; none when the VM is gone."""
    vm = vim.VirtualMachine(vm_moref, session.stub)
    try:
        values = session.run(
            "list the VM's snapshots",
            lambda: properties_of(session, vm, ["snapshot"]),
            repeatable=True,
        )
    except VsphereFault as error:
        if error.fault.endswith("ManagedObjectNotFound"):
            return []
        raise
    return snapshots_in(values.get("snapshot"))


def morefs_by_name(session: VsphereSession, vm_moref: str, name: str) -> list[str]:
    """Of the VM's snapshots with this name; none when the VM is gone."""
    return [
        str(node.snapshot._GetMoId())
        for node in _snapshot_nodes(session, vm_moref)
        if unescaped(node.name) == name
    ]


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
    end = time.monotonic() + REMOVE_TIMEOUT_S
    # A file that is still locked by a reader that just closed passes;
    # removing what is gone already changes nothing.
    attempts = Retrying(
        retry=retry_if_exception_type((SnapshotNotRemoved, VsphereUnreachable)),
        stop=lambda state: session.closed or state.attempt_number >= _REMOVE_ATTEMPTS,
        wait=wait_random_exponential(multiplier=1, max=30),
        reraise=True,
    )
    attempts(_remove_once, session, vm_moref, moref, name, end)


def _remove_once(session: VsphereSession, vm_moref: str, moref: str, name: str, end: float) -> None:
    snapshot = vim.vm.Snapshot(moref, session.stub)
    problem = "the task ended well, the snapshot is still there"
    try:
        _run_task(
            session,
            f"remove snapshot {name}",
            lambda: snapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=True),
            end,
        )
    except TaskFailed as error:
        problem = phrase(error.fault)
    except VsphereFault as error:
        problem = str(error)
    if moref in [str(node.snapshot._GetMoId()) for node in _snapshot_nodes(session, vm_moref)]:
        raise SnapshotNotRemoved(name, vm_moref, problem)
    _consolidate(session, vm_moref, name, end)


def _consolidate(session: VsphereSession, vm_moref: str, name: str, end: float) -> None:
    """Merge disks that the removal left as they were."""
    vm = vim.VirtualMachine(vm_moref, session.stub)
    try:
        values = session.run(
            "see whether disks need consolidation",
            lambda: properties_of(session, vm, ["runtime.consolidationNeeded"]),
            repeatable=True,
        )
        if not values.get("runtime.consolidationNeeded"):
            return
        _run_task(session, "consolidate the VM's disks", vm.ConsolidateVMDisks_Task, end)
    except TaskFailed as error:
        raise SnapshotNotRemoved(
            name, vm_moref, f"its disks need consolidation: {phrase(error.fault)}"
        ) from error
    except VsphereFault as error:
        if not error.fault.endswith("ManagedObjectNotFound"):
            raise


class _Busy(Exception):
    """Another task was at the VM; it ended, or vSphere does not name it."""


def _run_task(session: VsphereSession, doing: str, start: Callable[[], Any], end: float) -> None:
    """Start a task and wait for it; while another one is at the VM, wait for that first.

    Raises TaskFailed, TaskTimedOut at `end`, VsphereErrors.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(_Busy),
        stop=lambda state: session.closed or time.monotonic() >= end,
        wait=wait_random_exponential(multiplier=0.5, max=15),
        reraise=True,
    )
    try:
        attempts(_run_task_once, session, doing, start, end)
    except _Busy as error:
        raise TaskTimedOut(doing, REMOVE_TIMEOUT_S) from error.__cause__


def _run_task_once(
    session: VsphereSession, doing: str, start: Callable[[], Any], end: float
) -> None:
    try:
        _wait(session, session.run(doing, start), doing, end)
    except (TaskFailed, VsphereFault) as error:
        fault = error.fault if isinstance(error, TaskFailed) else error.__cause__
        if not isinstance(fault, vim.fault.TaskInProgress):
            raise
        _wait_for_other(session, fault.task, end)
        raise _Busy from error


def _wait(session: VsphereSession, task: Any, doing: str, end: float) -> None:
    wait_for_task(session, task, doing, max(0.0, end - time.monotonic()), REMOVE_UNREACHABLE_S)


def _wait_for_other(session: VsphereSession, task: Any, end: float) -> None:
    """Until another task ended, however; one that is not named or is gone is not waited for."""
    if task is None:
        return
    moref = vim.Task(task._GetMoId(), session.stub)
    try:
        _wait(session, moref, "end another task at the VM", end)
    except (TaskFailed, VsphereFault):
        return
