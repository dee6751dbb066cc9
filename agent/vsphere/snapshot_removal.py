"""Snapshots of the agent, removed: at a job's end, after a failure, and as leftovers."""

from collections.abc import Callable
from typing import Any

import structlog
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from agent.vsphere.api import vim
from agent.vsphere.devices import unescaped
from agent.vsphere.errors import (
    SnapshotNotRemoved,
    VsphereError,
    VsphereFault,
    VsphereUnreachable,
)
from agent.vsphere.inventory import snapshots_in
from agent.vsphere.models import JobSnapshot, Leftover
from agent.vsphere.properties import TaskFailed, properties_of, wait_for_task
from agent.vsphere.session import VsphereSession, phrase

_log = structlog.get_logger(__name__)

REMOVE_TIMEOUT_S = 4 * 3600.0
"""Removing merges everything that was written since: hours on a busy VM."""
_REMOVE_ATTEMPTS = 4


def remove_after_failure(session: VsphereSession, vm_moref: str, name: str) -> None:
    """By name, as a lost answer leaves a snapshot whose moref nobody learnt. Raises nothing."""
    try:
        for moref in _morefs_by_name(session, vm_moref, name):
            _remove(session, vm_moref, moref, name)
    except VsphereError as error:
        _log.error("snapshot_left_behind", snapshot=name, vm=vm_moref, error=str(error))


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


def _morefs_by_name(session: VsphereSession, vm_moref: str, name: str) -> list[str]:
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
        _remove(session, snapshot.vm_moref, snapshot.moref, snapshot.name)
    except SnapshotNotRemoved:
        raise
    except VsphereError as error:
        raise SnapshotNotRemoved(snapshot.name, snapshot.vm_moref, str(error)) from error


def _remove(session: VsphereSession, vm_moref: str, moref: str, name: str) -> None:
    # Another task at the VM, or a file that is still locked by a reader that
    # just closed, passes; removing what is gone already changes nothing.
    attempts = Retrying(
        retry=retry_if_exception(_passes),
        stop=stop_after_attempt(_REMOVE_ATTEMPTS),
        wait=wait_random_exponential(multiplier=1, max=30),
        reraise=True,
    )
    attempts(_remove_once, session, vm_moref, moref, name)


def _passes(error: BaseException) -> bool:
    return isinstance(error, SnapshotNotRemoved | VsphereUnreachable)


def _remove_once(session: VsphereSession, vm_moref: str, moref: str, name: str) -> None:
    snapshot = vim.vm.Snapshot(moref, session.stub)
    problem = "the task ended well, the snapshot is still there"
    try:
        _run_task(
            session,
            f"remove snapshot {name}",
            lambda: snapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=True),
        )
    except TaskFailed as error:
        problem = phrase(error.fault)
    except VsphereFault as error:
        problem = str(error)
    if moref in [str(node.snapshot._GetMoId()) for node in _snapshot_nodes(session, vm_moref)]:
        raise SnapshotNotRemoved(name, vm_moref, problem)
    _consolidate(session, vm_moref, name)


def _consolidate(session: VsphereSession, vm_moref: str, name: str) -> None:
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
        _run_task(session, "consolidate the VM's disks", vm.ConsolidateVMDisks_Task)
    except TaskFailed as error:
        raise SnapshotNotRemoved(
            name, vm_moref, f"its disks need consolidation: {phrase(error.fault)}"
        ) from error
    except VsphereFault as error:
        if not error.fault.endswith("ManagedObjectNotFound"):
            raise


def _run_task(session: VsphereSession, doing: str, start: Callable[[], Any]) -> None:
    wait_for_task(session, session.run(doing, start), doing, REMOVE_TIMEOUT_S)
