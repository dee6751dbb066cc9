"""All that can be told of a site's VMs by looking: for people who ask what a backup would meet."""

from typing import Any

from agent.vsphere.api import vim
from agent.vsphere.devices import frozen_disks_of, unescaped
from agent.vsphere.errors import VsphereError
from agent.vsphere.inventory import PATHS, machine_info
from agent.vsphere.models import LeftOutVm, SiteSurvey, SurveyedVm
from agent.vsphere.privileges import Roles, missing, roles_of_site
from agent.vsphere.properties import virtual_machines
from agent.vsphere.session import VsphereSession

_MORE_PATHS = ("capability.changeTrackingSupported", "effectiveRole")


def survey(session: VsphereSession) -> SiteSurvey:
    """One look at every VM; changes nothing. Raises VsphereErrors."""
    found = session.run(
        "list the VMs",
        lambda: virtual_machines(session, [*PATHS, *_MORE_PATHS]),
        repeatable=True,
    )
    roles: Roles | None = None
    problem = ""
    try:
        roles = roles_of_site(session)
    except VsphereError as error:
        problem = str(error)
    machines: list[SurveyedVm] = []
    left_out: list[LeftOutVm] = []
    for vm, values in found:
        if reason := _left_out_because(values):
            name = unescaped(values.get("name")) or str(vm._GetMoId())
            left_out.append(LeftOutVm(name, str(vm._GetMoId()), reason))
        else:
            machines.append(_surveyed(vm, values, roles))
    machines.sort(key=lambda one: (one.info.name, one.info.moref))
    left_out.sort(key=lambda one: (one.name, one.moref))
    return SiteSurvey(machines, left_out, problem)


def _left_out_because(values: dict[str, Any]) -> str:
    if values.get("config.template"):
        return "it is a template: templates take no snapshots"
    if not values.get("config.instanceUuid"):
        return "its settings cannot be read: it is being made, or its host or datastore is away"
    return ""


def _surveyed(vm: Any, values: dict[str, Any], roles: Roles | None) -> SurveyedVm:
    powered = values.get("runtime.powerState")
    return SurveyedVm(
        info=machine_info(vm, values),
        is_off=powered == vim.VirtualMachine.PowerState.poweredOff,
        change_tracking_supported=bool(values.get("capability.changeTrackingSupported", True)),
        disks_now=frozen_disks_of(values.get("config.hardware.device")),
        missing=missing(values.get("effectiveRole") or [], roles) if roles is not None else (),
    )
