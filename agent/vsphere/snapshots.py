"""One snapshot per job, of all its disks."""

from dataclasses import replace
from typing import Any

from agent.vsphere import change_tracking
from agent.vsphere.api import vim
from agent.vsphere.devices import disks_of, frozen_disks_of, unescaped
from agent.vsphere.errors import (
    NoDisks,
    SnapshotFailed,
    TaskTimedOut,
    VmNotFound,
    VsphereFault,
)
from agent.vsphere.inventory import snapshots_in
from agent.vsphere.leftovers import NAME_PREFIX, description_for
from agent.vsphere.models import Consistency, JobSnapshot, VirtualDiskInfo, Warning
from agent.vsphere.properties import TaskFailed, properties_of
from agent.vsphere.session import VsphereSession, phrase
from agent.vsphere.snapshot_creation import SnapshotCreation

_VM_PATHS = (
    "name",
    "config.instanceUuid",
    "config.changeTrackingEnabled",
    "config.hardware.device",
    "capability.changeTrackingSupported",
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
) -> JobSnapshot:
    """Enable tracking where needed, then take the job's snapshot.

    When this raises, no snapshot of the job is left, except with
    SnapshotMaybeLeft. Raises VmNotFound, NoDisks, SnapshotFailed, VsphereErrors.
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
    if not values.get("config.changeTrackingEnabled"):
        warning = change_tracking.enable(
            session,
            vm,
            supported=values.get("capability.changeTrackingSupported", True),
            snapshot_count=len(snapshots_in(values.get("snapshot"))),
        )
        if warning:
            warnings.append(warning)
    name = NAME_PREFIX + job_id
    description = description_for(owner, session.settings.site, job_id)
    creation = SnapshotCreation(
        session, vm_moref, name, description, f"take a snapshot of {vm_name}"
    )
    try:
        frozen, quiesced = _create(creation, vm_name, quiesce, warnings)
        running = values.get("runtime.powerState") == vim.VirtualMachine.PowerState.poweredOn
        consistency: Consistency = "file_system" if quiesced and running else "crash"
        snapshot = _described(session, frozen, vm_moref, vm_name, name, consistency, warnings)
        others = _names_beside(snapshot.moref, values.get("snapshot"), _tree(session, vm))
        return replace(snapshot, other_snapshots=others)
    except BaseException as failure:
        creation.undo(failure)
        raise


def _vm_properties(session: VsphereSession, vm: Any, instance_uuid: str) -> dict[str, Any]:
    address, moref = session.settings.address, str(vm._GetMoId())
    try:
        values = session.run(
            "read the VM's settings",
            lambda: properties_of(session, vm, _VM_PATHS),
            repeatable=True,
        )
    except VsphereFault as error:
        if error.fault.endswith("ManagedObjectNotFound"):
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


def _tree(session: VsphereSession, vm: Any) -> Any:
    values = session.run(
        "list the VM's snapshots",
        lambda: properties_of(session, vm, ["snapshot"]),
        repeatable=True,
    )
    return values.get("snapshot")


def _names_beside(moref: str, *trees: Any) -> list[str]:
    """Of all snapshots but one, in trees read before and after it was taken.

    Both, as others come and go meanwhile: a name too many costs an increment,
    one too few could cost data.
    """
    nodes = {str(node.snapshot._GetMoId()): node for tree in trees for node in snapshots_in(tree)}
    nodes.pop(moref, None)
    return [unescaped(node.name) for node in nodes.values()]


def _require_disks(vm_name: str, disks: list[VirtualDiskInfo]) -> None:
    if not disks:
        raise NoDisks(vm_name, "it has none at all")
    if all(disk.not_protectable_reason for disk in disks):
        reasons = "; ".join(f"{disk.label}: {disk.not_protectable_reason}" for disk in disks)
        raise NoDisks(vm_name, reasons)


def _create(
    creation: SnapshotCreation, vm_name: str, quiesce: bool, warnings: list[Warning]
) -> tuple[Any, bool]:
    """The snapshot and whether its guest was quiesced; without, when VMware Tools fail."""
    if quiesce:
        try:
            return creation.create(quiesced=True), True
        except TaskFailed as error:
            problem = phrase(error.fault)
        except VsphereFault as error:
            if not creation.refused:
                raise  # a second one of the same name could come of it
            problem = error.problem
        warnings.append(
            Warning(
                "QUIESCE_FAILED",
                f"the guest could not be quiesced ({problem}): this restore point is as after a "
                "power failure; see whether VMware Tools run in the guest",
            )
        )
    try:
        return creation.create(quiesced=False), False
    except TaskFailed as error:
        raise SnapshotFailed(vm_name, phrase(error.fault)) from error
    except (VsphereFault, TaskTimedOut) as error:
        raise SnapshotFailed(vm_name, str(error)) from error


def _described(
    session: VsphereSession,
    frozen: Any,
    vm_moref: str,
    vm_name: str,
    name: str,
    consistency: Consistency,
    warnings: list[Warning],
) -> JobSnapshot:
    if frozen is None:
        raise SnapshotFailed(vm_name, "vSphere's task ended well but named no snapshot")
    values = session.run(
        "read the snapshot's disks",
        lambda: properties_of(session, frozen, ["config.hardware.device"]),
        repeatable=True,
    )
    disks = frozen_disks_of(values.get("config.hardware.device"))
    if not disks:
        raise NoDisks(vm_name, "the snapshot froze none")
    return JobSnapshot(str(frozen._GetMoId()), vm_moref, name, consistency, disks, warnings)
