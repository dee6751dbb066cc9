"""The VMs of a site, fetched as property sets: a few calls however many VMs there are."""

from typing import Any

from agent.vsphere.devices import disks_of, unescaped
from agent.vsphere.models import VirtualMachineInfo
from agent.vsphere.properties import virtual_machines
from agent.vsphere.session import VsphereSession
from agent.vsphere.snapshot_tree import snapshots_in

PATHS = (
    "name",
    "config.instanceUuid",
    "config.changeTrackingEnabled",
    "config.guestFullName",
    "config.template",
    "config.hardware.device",
    "runtime.consolidationNeeded",
    "runtime.powerState",
    "snapshot",
)


def list_virtual_machines(session: VsphereSession) -> list[VirtualMachineInfo]:
    """The VMs that can be named in a job, ordered by name.

    Templates take no snapshots, and a VM without settings is being made or
    cannot be read by its host: both are left out.
    """
    found = session.run("list the VMs", lambda: virtual_machines(session, PATHS), repeatable=True)
    machines = [
        machine_info(vm, values)
        for vm, values in found
        if values.get("config.instanceUuid") and not values.get("config.template")
    ]
    return sorted(machines, key=lambda machine: (machine.name, machine.moref))


def machine_info(vm: Any, values: dict[str, Any]) -> VirtualMachineInfo:
    """A VM from the properties at `PATHS`; it must have an instance uuid."""
    return VirtualMachineInfo(
        name=unescaped(values.get("name")),
        moref=str(vm._GetMoId()),
        instance_uuid=str(values["config.instanceUuid"]),
        power_state=str(values.get("runtime.powerState") or ""),
        change_tracking_enabled=bool(values.get("config.changeTrackingEnabled")),
        consolidation_needed=bool(values.get("runtime.consolidationNeeded")),
        snapshots=snapshots_in(values.get("snapshot")),
        guest_full_name=str(values.get("config.guestFullName") or ""),
        disks=disks_of(values.get("config.hardware.device")),
    )
