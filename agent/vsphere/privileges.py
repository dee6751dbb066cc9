"""What the agent's user must be allowed to do, and whether the site lets it.

A host has no method that answers this: HasPrivilegeOnEntities and its like are
implemented by vCenter alone. The roles of the session on each object
(`effectiveRole`) and what each role holds (`roleList`) are there on both.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from agent.vsphere.errors import VsphereFault
from agent.vsphere.models import Needed
from agent.vsphere.properties import properties_of
from agent.vsphere.session import VsphereSession

_ADMINISTRATOR: Final = -1
"""The role that holds everything there is; its number is the same everywhere."""


NEEDED: Final = (
    Needed(("VirtualMachine.State.CreateSnapshot",), "take the snapshot of a backup"),
    Needed(
        ("VirtualMachine.State.RemoveSnapshot",), "remove the snapshot, and consolidate its disks"
    ),
    Needed(("VirtualMachine.Config.ChangeTracking",), "enable changed block tracking"),
    Needed(("VirtualMachine.Provisioning.DiskRandomRead",), "ask what changed on a disk"),
    Needed(
        ("VirtualMachine.Provisioning.GetVmFiles", "VirtualMachine.Provisioning.DiskRandomRead"),
        "get tickets to read disks",
    ),
    Needed(
        ("VirtualMachine.Config.DiskLease",), "hold disks while they are read", is_required=False
    ),
)
"""The last is in VMware's list for backups; no call of this agent is known to ask for it."""

Roles = Mapping[int, frozenset[str]]


def roles_of_site(session: VsphereSession) -> Roles:
    """What each role holds. Raises VsphereErrors, also where the user is not shown the roles."""
    manager, doing = session.content.authorizationManager, "list the roles"
    values = {}
    if manager is not None:
        values = session.run(
            doing, lambda: properties_of(session, manager, ["roleList"]), repeatable=True
        )
    # What a user may not see is left out of an answer. That is no role without privileges.
    if "roleList" not in values:
        raise VsphereFault(doing, "NoPermission", "it does not show them to this user")
    return {
        int(role.roleId): frozenset(str(one) for one in role.privilege or [])
        for role in values["roleList"]
    }


def missing(effective_roles: Iterable[int], roles: Roles) -> tuple[Needed, ...]:
    """What a session with these roles on a VM lacks there, in the order of `NEEDED`."""
    effective = list(effective_roles)
    if _ADMINISTRATOR in effective:
        return ()
    held = frozenset[str]().union(*(roles.get(role, frozenset()) for role in effective))
    return tuple(one for one in NEEDED if held.isdisjoint(one.any_of))
