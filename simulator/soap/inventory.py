"""The objects of a standalone ESXi host: folders, host, datastore, pool, VMs, managers."""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

from simulator.machines import SimulatedVm
from simulator.snapshots import Snapshot
from simulator.soap.objects import Managed
from simulator.soap.sessions import Session, Sessions
from simulator.soap.tasks import Tasks
from simulator.soap.vm_view import (
    DATASTORE,
    DATASTORE_NAME,
    snapshot_properties,
    vm_properties,
    vm_reference,
)
from simulator.soap.vmomi import API_VERSION, Reference, support, vim, vmodl

_BUILD = "24022510"
_CAPACITY = 8 << 40

Properties = dict[str, Callable[[], Any]]


class Machines(Protocol):
    """Where the VMs come from."""

    host_name: str
    host_uuid: str

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
        for reference, properties in self._fixed_objects():
            self._fixed[reference._moId] = Managed(reference, properties)

    def find(self, reference: Reference, session: Session | None) -> Managed | None:
        """The object a reference names; None when there is none (any more)."""
        moid = reference._moId
        found = self._fixed.get(moid)
        if found is not None:
            return found
        if session is not None and moid in session.objects:
            own: Managed = session.objects[moid].managed
            return own
        if moid == "ha-sessionmgr":
            return self._session_manager(session)
        task = self._tasks.get(moid)
        if task is not None:
            return Managed(vim.Task(moid), {"info": task.info})
        for vm in self._machines.vms:
            if vm.moid == moid:
                return Managed(vm_reference(vm), vm_properties(vm, self._machines.host_name))
            if moid.startswith(f"{vm.moid}-snapshot-"):
                for snapshot in vm.snapshots:
                    if snapshot.moid == moid:
                        return Managed(vim.vm.Snapshot(moid), snapshot_properties(vm, snapshot))
        return None

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

    def service_content(self) -> Any:
        """vim.ServiceInstanceContent"""
        return vim.ServiceInstanceContent(
            rootFolder=vim.Folder("ha-folder-root"),
            propertyCollector=vmodl.query.PropertyCollector("ha-property-collector"),
            viewManager=vim.view.ViewManager("ViewManager"),
            about=self._about(),
            sessionManager=vim.SessionManager("ha-sessionmgr"),
            taskManager=vim.TaskManager("ha-taskmgr"),
            searchIndex=vim.SearchIndex("ha-searchindex"),
        )

    def _about(self) -> Any:
        return vim.AboutInfo(
            name="VMware ESXi",
            fullName=f"VMware ESXi 8.0.3 build-{_BUILD}",
            vendor="VMware, Inc.",
            version="8.0.3",
            patchLevel="0",
            build=_BUILD,
            localeVersion="INTL",
            localeBuild="000",
            osType="vmnix-x86",
            productLineId="embeddedEsx",
            apiType="HostAgent",
            apiVersion=API_VERSION,
            licenseProductName="VMware ESX Server",
            licenseProductVersion="8.0",
        )

    def _fixed_objects(self) -> Iterator[tuple[Reference, Properties]]:
        root = vim.Folder("ha-folder-root")
        datacenter = vim.Datacenter("ha-datacenter")
        vm_folder = vim.Folder("ha-folder-vm")
        host_folder = vim.Folder("ha-folder-host")
        store_folder = vim.Folder("ha-folder-datastore")
        network_folder = vim.Folder("ha-folder-network")
        compute = vim.ComputeResource("ha-compute-res")
        host = vim.HostSystem("ha-host")
        pool = vim.ResourcePool("ha-root-pool")
        datastore = vim.Datastore(DATASTORE)

        yield (
            vim.ServiceInstance("ServiceInstance"),
            {
                "content": self.service_content,
                "serverClock": lambda: datetime.now(UTC),
                "capability": lambda: vim.Capability(
                    provisioningSupported=True,
                    multiHostSupported=False,
                    userShellAccessSupported=False,
                ),
            },
        )
        for moid, kind in (
            ("ha-property-collector", vmodl.query.PropertyCollector),
            ("ViewManager", vim.view.ViewManager),
            ("ha-searchindex", vim.SearchIndex),
        ):
            yield kind(moid), {}
        yield support.ManagedObject("ha-nfc"), {}
        yield (
            vim.TaskManager("ha-taskmgr"),
            {
                "recentTask": lambda: [vim.Task(one.moid) for one in self._tasks.recent()],
                "maxCollector": lambda: 32,
            },
        )
        yield (
            root,
            _entity("ha-folder-root", None)
            | {
                "childType": lambda: [vim.Datacenter],
                "childEntity": lambda: [datacenter],
            },
        )
        yield (
            datacenter,
            _entity("ha-datacenter", root)
            | {
                "vmFolder": lambda: vm_folder,
                "hostFolder": lambda: host_folder,
                "datastoreFolder": lambda: store_folder,
                "networkFolder": lambda: network_folder,
                "datastore": lambda: [datastore],
                "network": list,
            },
        )
        yield (
            vm_folder,
            _entity("vm", datacenter)
            | {
                "childType": lambda: [vim.VirtualMachine],
                "childEntity": self._vm_references,
            },
        )
        yield (
            host_folder,
            _entity("host", datacenter)
            | {
                "childType": lambda: [vim.ComputeResource],
                "childEntity": lambda: [compute],
            },
        )
        yield (
            store_folder,
            _entity("datastore", datacenter)
            | {
                "childType": lambda: [vim.Datastore],
                "childEntity": lambda: [datastore],
            },
        )
        yield (
            network_folder,
            _entity("network", datacenter)
            | {
                "childType": lambda: [vim.Network],
                "childEntity": list,
            },
        )
        yield (
            compute,
            _entity(self._machines.host_name, host_folder)
            | {
                "host": lambda: [host],
                "resourcePool": lambda: pool,
                "datastore": lambda: [datastore],
                "network": list,
            },
        )
        yield (
            pool,
            _entity("Resources", compute)
            | {
                "owner": lambda: compute,
                "resourcePool": list,
                "vm": self._vm_references,
            },
        )
        yield (
            host,
            _entity(self._machines.host_name, compute)
            | {
                "vm": self._vm_references,
                "datastore": lambda: [datastore],
                "network": list,
                "summary": lambda: self._host_summary(host),
            },
        )
        yield (
            datastore,
            _entity(DATASTORE_NAME, store_folder)
            | {
                "vm": self._vm_references,
                "summary": lambda: vim.Datastore.Summary(
                    datastore=datastore,
                    name=DATASTORE_NAME,
                    url=f"/vmfs/volumes/{DATASTORE}",
                    capacity=_CAPACITY,
                    freeSpace=_CAPACITY // 2,
                    accessible=True,
                    multipleHostAccess=False,
                    type="VMFS",
                    maintenanceMode="normal",
                ),
            },
        )

    def _host_summary(self, host: Reference) -> Any:
        return vim.host.Summary(
            host=host,
            hardware=vim.host.Summary.HardwareSummary(
                vendor="Sendense",
                model="Simulated ESXi",
                uuid=self._machines.host_uuid,
                memorySize=64 << 30,
                cpuModel="Simulated CPU",
                cpuMhz=2400,
                numCpuPkgs=1,
                numCpuCores=8,
                numCpuThreads=16,
                numNics=1,
                numHBAs=1,
            ),
            config=vim.host.Summary.ConfigSummary(
                name=self._machines.host_name,
                port=902,
                product=self._about(),
                vmotionEnabled=False,
                faultToleranceEnabled=False,
            ),
            quickStats=vim.host.Summary.QuickStats(),
            overallStatus="green",
            rebootRequired=False,
        )


def _entity(name: str, parent: Reference | None) -> Properties:
    return {
        "name": lambda: name,
        "parent": lambda: parent,
        "overallStatus": lambda: "green",
        "configStatus": lambda: "green",
        "effectiveRole": lambda: [-1],
    }


def default_host_name() -> str:
    """What the simulated host calls itself."""
    return f"esxi.{socket.gethostname().split('.')[0]}.test"
