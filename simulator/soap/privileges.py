"""Roles and privileges: what the one user of the host may do, and how clients can see it.

As on a real host, `effectiveRole` of an object and `roleList` of the AuthorizationManager
tell; HasPrivilegeOnEntities and its like are implemented by vCenter alone.
"""

from collections.abc import Callable
from typing import Any, Final

from simulator.soap.vmomi import vim

ADMINISTRATOR: Final = -1
LIMITED: Final = 11
_SYSTEM = ("System.Anonymous", "System.Read", "System.View")

REQUIRED: Final = {
    "ReconfigVM_Task": "VirtualMachine.Config.ChangeTracking",  # for what can be changed here
    "CreateSnapshot_Task": "VirtualMachine.State.CreateSnapshot",
    "CreateSnapshotEx_Task": "VirtualMachine.State.CreateSnapshot",
    "RemoveSnapshot_Task": "VirtualMachine.State.RemoveSnapshot",
    "RemoveAllSnapshots_Task": "VirtualMachine.State.RemoveSnapshot",
    "ConsolidateVMDisks_Task": "VirtualMachine.State.RemoveSnapshot",
    "RevertToSnapshot_Task": "VirtualMachine.State.RevertToSnapshot",
    "QueryChangedDiskAreas": "VirtualMachine.Provisioning.DiskRandomRead",
    "NfcGetVmFiles": "VirtualMachine.Provisioning.GetVmFiles",
    "NfcRandomAccessOpenReadonly": "VirtualMachine.Provisioning.DiskRandomRead",
    "NfcRandomAccessOpenDisk": "VirtualMachine.Provisioning.DiskRandomAccess",
}
"""Of the methods that ask for more than to be logged in."""

_KNOWN = (*_SYSTEM, *sorted(set(REQUIRED.values())), "VirtualMachine.Config.DiskLease")


def effective_roles(missing: frozenset[str]) -> list[int]:
    """The caller's roles on any object; `missing` are the privileges that it lacks."""
    return [LIMITED] if missing else [ADMINISTRATOR]


def manager_properties(missing: Callable[[], frozenset[str]]) -> dict[str, Callable[[], Any]]:
    """Of vim.AuthorizationManager."""
    return {
        "roleList": lambda: _roles(missing()),
        "privilegeList": lambda: [
            vim.AuthorizationManager.Privilege(
                privId=one,
                onParent=False,
                name=one.rsplit(".", 1)[1],
                privGroupName=one.rsplit(".", 1)[0],
            )
            for one in _KNOWN
        ],
    }


def _roles(missing: frozenset[str]) -> list[Any]:
    held = [one for one in _KNOWN if one not in missing]
    return [
        _role(-5, "NoAccess", "No access", ()),
        _role(-2, "ReadOnly", "Read-only", _SYSTEM),
        _role(ADMINISTRATOR, "Admin", "Administrator", _KNOWN),
        *([_role(LIMITED, "Limited", "Limited", held)] if missing else []),
    ]


def _role(number: int, name: str, label: str, privileges: Any) -> Any:
    return vim.AuthorizationManager.Role(
        roleId=number,
        system=number < 0,
        name=name,
        info=vim.Description(label=label, summary=label),
        privilege=list(privileges),
    )
