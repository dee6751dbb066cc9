"""The objects that a standalone ESXi host always has: managers, folders, host, pool, datastore."""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from simulator.behaviour import Flavour
from simulator.soap.tasks import Tasks
from simulator.soap.vm_view import DATASTORE, DATASTORE_NAME
from simulator.soap.vmomi import API_VERSION, Reference, vim, vmodl

_BUILD = "24022510"
_CAPACITY = 8 << 40

Properties = dict[str, Callable[[], Any]]


def service_content(flavour: Flavour) -> Any:
    """vim.ServiceInstanceContent"""
    return vim.ServiceInstanceContent(
        rootFolder=vim.Folder("ha-folder-root"),
        propertyCollector=vmodl.query.PropertyCollector("ha-property-collector"),
        viewManager=vim.view.ViewManager("ViewManager"),
        about=_about(flavour.api_type),
        sessionManager=vim.SessionManager("ha-sessionmgr"),
        authorizationManager=vim.AuthorizationManager("ha-authmgr"),
        taskManager=vim.TaskManager("ha-taskmgr"),
        searchIndex=vim.SearchIndex("ha-searchindex"),
    )


def _about(api_type: str = "HostAgent") -> Any:
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
        apiType=api_type,
        apiVersion=API_VERSION,
        licenseProductName="VMware ESX Server",
        licenseProductVersion="8.0",
    )


def host_objects(
    name: str,
    uuid: str,
    tasks: Tasks,
    vms: Callable[[], list[Reference]],
    flavour: Callable[[], Flavour],
) -> Iterator[tuple[Reference, Properties]]:
    """Reference and properties of every object that is always there."""
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
            "content": lambda: service_content(flavour()),
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
    yield (
        vim.TaskManager("ha-taskmgr"),
        {
            "recentTask": lambda: [vim.Task(one.moid) for one in tasks.recent()],
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
            "childEntity": vms,
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
        _entity(name, host_folder)
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
            "vm": vms,
        },
    )
    yield (
        host,
        _entity(name, compute)
        | {
            "vm": vms,
            "datastore": lambda: [datastore],
            "network": list,
            "summary": lambda: _host_summary(host, name, uuid),
        },
    )
    yield (
        datastore,
        _entity(DATASTORE_NAME, store_folder)
        | {
            "vm": vms,
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


def _host_summary(host: Reference, name: str, uuid: str) -> Any:
    return vim.host.Summary(
        host=host,
        hardware=vim.host.Summary.HardwareSummary(
            vendor="Sendense",
            model="Simulated ESXi",
            uuid=uuid,
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
            name=name,
            port=902,
            product=_about(),
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
