"""One snapshot per job, of all its disks."""

import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

from agent.cancellation import NEVER_CANCELLED, Cancellation
from agent.vsphere import change_tracking, consolidation, hygiene
from agent.vsphere.api import vim
from agent.vsphere.devices import disks_of, unescaped
from agent.vsphere.errors import (
    DisksNotConsolidated,
    NoDisks,
    SnapshotFailed,
    TaskTimedOut,
    VmNotFound,
    VsphereFault,
)
from agent.vsphere.frozen import frozen_disks
from agent.vsphere.models import (
    Consistency,
    JobSnapshot,
    SnapshotInfo,
    VirtualDiskInfo,
    Warning,
)
from agent.vsphere.properties import TaskFailed, properties_of
from agent.vsphere.quiescing import is_quiesce_fault, not_quiesced
from agent.vsphere.session import VsphereSession, phrase
from agent.vsphere.snapshot_creation import SnapshotCreation
from agent.vsphere.snapshot_removal import remove_of_job
from agent.vsphere.snapshot_tree import (
    NAME_PREFIX,
    description_for,
    is_of,
    snapshots_in,
    snapshots_of,
)

_VM_PATHS = (
    "name",
    "config.instanceUuid",
    "config.changeTrackingEnabled",
    "config.hardware.device",
    "capability.changeTrackingSupported",
    "runtime.consolidationNeeded",
    "runtime.powerState",
    "snapshot",
)


def take_snapshot(
    session: VsphereSession,
    *,
    job_id: str,
    vm_moref: str,
    instance_uuid: str,
    quiesce: bool,
    owner: str,
    cancellation: Cancellation = NEVER_CANCELLED,
) -> JobSnapshot:
    """Consolidate and enable tracking where needed, then take the job's snapshot.

    One that an earlier run took for the same job is removed first: nobody knows what it
    was meant to be. When this raises, no snapshot of the job is left, except with
    SnapshotMaybeLeft and SnapshotNotRemoved. Raises VmNotFound, NoDisks, SnapshotFailed,
    VsphereErrors, the error of `cancellation`, which is looked at before each step.
    """
    vm = vim.VirtualMachine(vm_moref, session.stub)
    values = _vm_properties(session, vm, instance_uuid)
    vm_name = unescaped(values.get("name"))
    disks = disks_of(values.get("config.hardware.device"))
    _require_disks(vm_name, disks)
    warnings = [
        Warning(
            "DISK_SKIPPED",
            f"not backed up: {disk.not_protectable_reason}",
            disk.label,
        )
        for disk in disks
        if disk.not_protectable_reason
    ]
    name = NAME_PREFIX + job_id
    before = snapshots_in(values.get("snapshot"))
    if any(one.name == name and is_of(owner, one) for one in before):
        _remove_earlier(session, vm_moref, job_id, owner, cancellation)
        values = _vm_properties(session, vm, instance_uuid)
        before = snapshots_in(values.get("snapshot"))
    warnings += hygiene.warnings_of_others(session, before, owner)
    is_merged = True
    cancellation.check()
    if values.get("runtime.consolidationNeeded"):
        warning = consolidation.consolidate_before_snapshot(session, vm_moref)
        if warning:
            is_merged = False
            warnings.append(warning)
    cancellation.check()
    if not values.get("config.changeTrackingEnabled"):
        warning = change_tracking.enable(
            session,
            vm,
            vm_name=vm_name,
            supported=values.get("capability.changeTrackingSupported", True),
            snapshot_count=len(before),
            is_merged=is_merged,
        )
        if warning:
            warnings.append(warning)
    cancellation.check()
    description = description_for(owner, session.settings.site, job_id)
    creation = SnapshotCreation(
        session, vm_moref, name, description, f"take a snapshot of {vm_name}"
    )
    try:
        frozen, quiesced = _create(creation, vm_name, quiesce, warnings)
        snapshot = _described(session, frozen, vm_moref, vm_name, name, warnings)
        after = snapshots_of(session, vm_moref)
        running = values.get("runtime.powerState") == vim.VirtualMachine.PowerState.poweredOn
        return replace(
            snapshot,
            consistency=_consistency(snapshot.moref, after, quiesced and running, warnings),
            other_snapshots=_names_beside(snapshot.moref, [*before, *after]),
        )
    except BaseException as failure:
        creation.undo(failure)
        raise


def _vm_properties(session: VsphereSession, vm: Any, instance_uuid: str) -> dict[str, Any]:
    address, moref = session.settings.address, str(vm._GetMoId())
    try:
        values = session.run(
            f"read the settings of VM {moref}",
            lambda: properties_of(session, vm, _VM_PATHS),
            repeatable=True,
        )
    except VsphereFault as error:
        if error.is_object_gone:
            raise VmNotFound(address, moref, instance_uuid, "it is gone") from error
        raise
    found = values.get("config.instanceUuid")
    if not found:
        raise VmNotFound(address, moref, instance_uuid, "its settings cannot be read")
    if instance_uuid and found.lower() != instance_uuid.lower():
        raise VmNotFound(
            address, moref, instance_uuid, f"the id now belongs to another VM ({found})"
        )
    return values


def _remove_earlier(
    session: VsphereSession, vm_moref: str, job_id: str, owner: str, cancellation: Cancellation
) -> None:
    """Remove what an earlier run took for the job; merging its disks is the next step's."""
    ended = threading.Event()
    with cancellation.calling(lambda _: ended.set()), suppress(DisksNotConsolidated):
        remove_of_job(session, vm_moref, job_id, owner, ended)
    cancellation.check()


def _consistency(
    moref: str, snapshots: list[SnapshotInfo], asked: bool, warnings: list[Warning]
) -> Consistency:
    """The level that was reached: what the snapshot says of itself, not what was asked for."""
    if not asked:
        return "crash"
    if any(one.quiesced for one in snapshots if one.moref == moref):
        return "file_system"
    warnings.append(not_quiesced("vSphere took the snapshot without"))
    return "crash"


def _names_beside(moref: str, snapshots: list[SnapshotInfo]) -> list[str]:
    """Of all snapshots but one, as listed before and after it was taken.

    Both, as others come and go meanwhile: a name too many costs an increment,
    one too few could cost data.
    """
    by_moref = {one.moref: one.name for one in snapshots}
    by_moref.pop(moref, None)
    return list(by_moref.values())


def _require_disks(vm_name: str, disks: list[VirtualDiskInfo]) -> None:
    if not disks:
        raise NoDisks(vm_name, "it has none at all")
    if all(disk.not_protectable_reason for disk in disks):
        reasons = "; ".join(f"{disk.label}: {disk.not_protectable_reason}" for disk in disks)
        raise NoDisks(vm_name, reasons)


def _create(
    creation: SnapshotCreation, vm_name: str, quiesce: bool, warnings: list[Warning]
) -> tuple[Any, bool]:
    """The snapshot and whether its guest was quiesced; without, when the guest cannot be."""
    if quiesce:
        try:
            return creation.create(quiesced=True), True
        except (TaskFailed, VsphereFault, TaskTimedOut) as error:
            fault = error.fault if isinstance(error, TaskFailed) else error.__cause__
            # Not refused: a second one of the same name could come of it.
            if not creation.refused or not is_quiesce_fault(fault):
                raise _failed(vm_name, error) from error
            warnings.append(not_quiesced(phrase(fault)))
    try:
        return creation.create(quiesced=False), False
    except (TaskFailed, VsphereFault, TaskTimedOut) as error:
        raise _failed(vm_name, error) from error


def _failed(vm_name: str, error: TaskFailed | VsphereFault | TaskTimedOut) -> SnapshotFailed:
    problem = phrase(error.fault) if isinstance(error, TaskFailed) else str(error)
    return SnapshotFailed(vm_name, problem)


def _described(
    session: VsphereSession,
    frozen: Any,
    vm_moref: str,
    vm_name: str,
    name: str,
    warnings: list[Warning],
) -> JobSnapshot:
    if frozen is None:
        raise SnapshotFailed(vm_name, "vSphere's task ended well but named no snapshot")
    moref = str(frozen._GetMoId())
    disks = frozen_disks(session, moref)
    if not disks:
        raise NoDisks(vm_name, "the snapshot froze none")
    return JobSnapshot(moref, vm_moref, name, "crash", disks, warnings)
