"""The VM that a request means, at a site that starts backups."""

from typing import Final, NoReturn

from hub.catalog.agents import find_agent
from hub.catalog.contexts import VmIdentity, sites_of_vm
from hub.catalog.models import VmBackupContext
from hub.errors import (
    AgentAway,
    AgentDraining,
    AgentNotFound,
    AgentRemoved,
    VmAmbiguous,
    VmNotFound,
    VmUnidentified,
)
from hub.jobs.known_names import require_site
from hub.jobs.parts import Parts
from sendense.v1 import inventory_pb2

MAX_VM_NAME_CHARS: Final = 255
MAX_VM_ID_CHARS: Final = 64


def find_vm(parts: Parts, vm: str, site: str) -> VmIdentity:
    """The VM of that name, moref or instance uuid, at a connected site; `site` "" means any.

    Raises SiteNotFound, VmNotFound, VmAmbiguous, VmUnidentified, AgentDraining, AgentAway.
    """
    found = parts.agents.find_vm(vm, site)
    if found is not None:
        return _served(parts, found)
    # Backed up before, but its site did not report since the hub started?
    with parts.catalog.read() as session:
        sites = sites_of_vm(session, vm, site)
    away = [one for one in sites if not parts.agents.presence(one).connected]
    if len(away) > 1:
        raise VmAmbiguous(vm, away)
    if away:
        _refuse_away(parts, away[0])
    require_site(parts, site)
    raise VmNotFound(vm, site)


def vm_of_context(parts: Parts, context: VmBackupContext) -> VmIdentity:
    """The context's VM by its site and instance uuid, whatever it is called now.

    Raises VmNotFound, VmUnidentified, AgentDraining, AgentAway.
    """
    site = context.site
    found = [
        one
        for one in parts.agents.reported(site=site)
        if one.vm.instance_uuid == context.instance_uuid
    ]
    if len(found) > 1:
        names = ", ".join(one.vm.name for one in found)
        raise VmUnidentified(context.vm_name, f"{names} have the same instance uuid")
    if found:
        return _served(parts, found[0].message())
    if not parts.agents.presence(site).connected:
        _refuse_away(parts, site)
    raise VmNotFound(context.vm_name, site)


def _served(parts: Parts, found: inventory_pb2.VirtualMachine) -> VmIdentity:
    _require_not_draining(parts, found.site)
    if not found.agent_connected:
        raise AgentAway(found.site)
    if max(len(found.instance_uuid), len(found.vmware_vm_id)) > MAX_VM_ID_CHARS:
        raise VmUnidentified(found.name, f"its ids have more than {MAX_VM_ID_CHARS} characters")
    return VmIdentity(
        site=found.site,
        instance_uuid=found.instance_uuid,
        moref=found.vmware_vm_id,
        name=found.name[:MAX_VM_NAME_CHARS],
    )


def _refuse_away(parts: Parts, site: str) -> NoReturn:
    if not _require_not_draining(parts, site):
        raise AgentRemoved(site)
    raise AgentAway(site)


def _require_not_draining(parts: Parts, site: str) -> bool:
    """Whether the catalog has the site's agent: one may be removed, and not be registered again.

    Raises AgentDraining.
    """
    with parts.catalog.read() as session:
        try:
            draining = find_agent(session, site).draining
        except AgentNotFound:
            return False
    if draining:
        raise AgentDraining(site)
    return True
