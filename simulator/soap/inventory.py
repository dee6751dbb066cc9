"""Finding the managed objects of the host: fixed ones, VMs, snapshots, tasks, a session's own."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

from simulator.behaviour import Behaviour
from simulator.machines import SimulatedVm
from simulator.snapshots import Snapshot
from simulator.soap.host_objects import Properties, host_objects
from simulator.soap.objects import Managed
from simulator.soap.privileges import effective_roles, manager_properties
from simulator.soap.sessions import Session, Sessions
from simulator.soap.tasks import Tasks
from simulator.soap.vm_view import (
    DATASTORE,
    snapshot_properties,
    vm_properties,
    vm_reference,
)
from simulator.soap.vmomi import Reference, support, vim


class Machines(Protocol):
    """Where the VMs come from."""

    host_name: str
    host_uuid: str
    behaviour: Behaviour

    @property
    def vms(self) -> list[SimulatedVm]: ...


def user_session(session: Session) -> Any:
    """vim.UserSession"""
    return vim.UserSession(
        key=session.key,
        userName=session.user,
        fullName="Administrator",
        loginTime=session.login_time,
        lastActiveTime=datetime.now(UTC),
        locale="en",
        messageLocale="en",
        extensionSession=False,
        ipAddress=session.address,
        userAgent=session.user_agent,
        callCount=session.calls,
    )


class Inventory:
    """Finds managed objects by reference. Any thread may call."""

    def __init__(self, machines: Machines, sessions: Sessions, tasks: Tasks) -> None:
        self._machines = machines
        self._sessions = sessions
        self._tasks = tasks
        self._fixed: dict[str, Managed] = {}
        for reference, properties in host_objects(
            machines.host_name,
            machines.host_uuid,
            tasks,
            self._vm_references,
            lambda: machines.behaviour.site,
        ):
            self._fixed[reference._moId] = self._managed(reference, properties)
        manager = vim.AuthorizationManager("ha-authmgr")
        self._fixed[manager._moId] = Managed(manager, manager_properties(self._missing))

    def find(self, reference: Reference, session: Session | None) -> Managed | None:
        """The object a reference names; None when there is none (any more)."""
        moid = reference._moId
        found = self._fixed.get(moid)
        if found is not None:
            return found
        if session is not None and moid in session.objects:
            own: Managed = session.objects[moid].managed
            return own
        if moid == self.nfc_moref:
            return Managed(support.ManagedObject(moid), {})
        if moid == "ha-sessionmgr":
            return self._session_manager(session)
        task = self._tasks.get(moid)
        if task is not None:
            return Managed(vim.Task(moid), {"info": task.info})
        for vm in self._machines.vms:
            if vm.moid == moid:
                return self._managed(vm_reference(vm), vm_properties(vm, self._recent_tasks(vm)))
            if moid.startswith(f"{vm.moid}-snapshot-"):
                for snapshot in vm.snapshots:
                    if snapshot.moid == moid:
                        return Managed(vim.vm.Snapshot(moid), snapshot_properties(vm, snapshot))
        return None

    def _recent_tasks(self, vm: SimulatedVm) -> Callable[[], list[Reference]]:
        return lambda: [
            vim.Task(one.moid) for one in self._tasks.recent() if one.entity._moId == vm.moid
        ]

    def _managed(self, reference: Reference, properties: Properties) -> Managed:
        """With the caller's roles, where the object has any."""
        if "effectiveRole" in properties:
            properties = {
                **properties,
                "effectiveRole": lambda: effective_roles(self._missing()),
            }
        return Managed(reference, properties)

    def _missing(self) -> frozenset[str]:
        return self.behaviour.privileges_missing

    @property
    def behaviour(self) -> Behaviour:
        return self._machines.behaviour

    @property
    def nfc_moref(self) -> str:
        """The moid of the NFC service."""
        return self.behaviour.site.nfc_moref

    def vm(self, reference: Reference) -> SimulatedVm | None:
        """The VM a reference names."""
        return next((one for one in self._machines.vms if one.moid == reference._moId), None)

    def snapshot(self, reference: Reference) -> tuple[SimulatedVm, Snapshot] | None:
        """The snapshot a reference names, and its VM."""
        for vm in self._machines.vms:
            for snapshot in vm.snapshots:
                if snapshot.moid == reference._moId:
                    return vm, snapshot
        return None

    def below(self, container: Reference, *, recursive: bool) -> Iterator[Reference]:
        """Entities inside a folder, datacenter, compute resource or pool, for container views."""
        for child in self._children(container):
            yield child
            if recursive:
                yield from self.below(child, recursive=True)

    def _children(self, container: Reference) -> list[Reference]:
        children: dict[str, list[Reference]] = {
            "ha-folder-root": [vim.Datacenter("ha-datacenter")],
            "ha-datacenter": [
                vim.Folder("ha-folder-vm"),
                vim.Folder("ha-folder-host"),
                vim.Folder("ha-folder-datastore"),
                vim.Folder("ha-folder-network"),
            ],
            "ha-folder-host": [vim.ComputeResource("ha-compute-res")],
            "ha-folder-datastore": [vim.Datastore(DATASTORE)],
            "ha-compute-res": [vim.HostSystem("ha-host"), vim.ResourcePool("ha-root-pool")],
        }
        if container._moId == "ha-folder-vm":
            return self._vm_references()
        return children.get(container._moId, [])

    def _vm_references(self) -> list[Reference]:
        return [vm_reference(vm) for vm in self._machines.vms]

    def _session_manager(self, session: Session | None) -> Managed:
        return Managed(
            vim.SessionManager("ha-sessionmgr"),
            {
                "sessionList": lambda: [user_session(one) for one in self._sessions.all()],
                "currentSession": lambda: user_session(session) if session else None,
                "message": str,
                "supportedLocale": lambda: ["en"],
                "defaultLocale": lambda: "en",
            },
        )
