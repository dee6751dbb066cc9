"""The vSphere API, judged by pyVmomi: inventory and properties."""

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.simulator.conftest import MIB, take_snapshot
from tests.unit.simulator.view_filters import view_filter

PC = vmodl.query.PropertyCollector


def test_container_view_lists_vms_and_their_facts(
    api: Any, site: SimulatedSite, vm: SimulatedVm
) -> None:
    site.add_vm("off", power_state="poweredOff")
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    assert [(one.name, one.runtime.powerState) for one in view.view] == [
        (vm.name, "poweredOn"),
        ("off", "poweredOff"),
    ]
    first = view.view[0]
    assert first.config.instanceUuid == vm.instance_uuid
    assert first.summary.config.numVirtualDisks == 2
    assert first.guest.toolsRunningStatus == "guestToolsRunning"
    assert [one.name for one in first.layoutEx.file if one.type == "diskDescriptor"] == [
        "[datastore1] db 1/db 1.vmdk",
        "[datastore1] db 1/db 1_1.vmdk",
    ]
    disks = [
        (one.key, one.controllerKey, one.unitNumber, one.capacityInBytes)
        for one in first.config.hardware.device
        if isinstance(one, vim.vm.device.VirtualDisk)
    ]
    assert disks == [(2000, 1000, 0, 16 * MIB), (2016, 1001, 0, 8 * MIB)]
    view.Destroy()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        view.view  # noqa: B018


def test_inventory_can_be_walked_from_the_root_and_back(api: Any, vm: SimulatedVm) -> None:
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.ManagedEntity], True)
    for entity in view.view:
        at = entity
        while at.parent is not None:
            at = at.parent
        assert at == content.rootFolder
    kinds = {type(entity) for entity in view.view}
    assert {
        vim.Datacenter,
        vim.ComputeResource,
        vim.HostSystem,
        vim.ResourcePool,
        vim.Datastore,
        vim.Folder,
        vim.VirtualMachine,
    } == kinds
    datacenter = content.rootFolder.childEntity[0]
    assert [one.name for one in datacenter.vmFolder.childEntity] == [vm.name]
    host = datacenter.hostFolder.childEntity[0].host[0]
    assert host.summary.config.product.apiType == "HostAgent"
    assert [one.name for one in host.vm] == [vm.name]


def test_property_retrieval_comes_in_pages_with_tokens(
    api: Any, site: SimulatedSite, vm: SimulatedVm
) -> None:
    for number in range(6):
        site.add_vm(f"more {number}")
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [], True)
    collector = content.propertyCollector
    spec = view_filter(view, vim.VirtualMachine, ["name", "config.hardware.device"])
    names: list[str] = []
    page = collector.RetrievePropertiesEx([spec], PC.RetrieveOptions(maxObjects=3))
    sizes = [len(page.objects)]
    while True:
        names += [one.val for item in page.objects for one in item.propSet if one.name == "name"]
        if not page.token:
            break
        token = page.token
        page = collector.ContinueRetrievePropertiesEx(token)
        sizes.append(len(page.objects))
    assert sizes == [3, 3, 1]
    assert names == [one.name for one in site.vms]
    with pytest.raises(vmodl.fault.InvalidArgument):
        collector.ContinueRetrievePropertiesEx(token)


def test_host_limits_pages_of_clients_that_do_not(
    api: Any, site: SimulatedSite, vm: SimulatedVm
) -> None:
    site.add_vm("second")
    site.behaviour.page_objects = 1
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    spec = view_filter(view, vim.VirtualMachine, ["name"])
    page = content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())
    assert len(page.objects) == 1
    assert page.token


def test_base_types_nested_traversals_and_named_selections_work(api: Any, vm: SimulatedVm) -> None:
    content = api.RetrieveContent()
    spec = PC.FilterSpec(
        objectSet=[
            PC.ObjectSpec(
                obj=content.rootFolder,
                skip=False,
                selectSet=[
                    PC.TraversalSpec(
                        name="folder",
                        type=vim.Folder,
                        path="childEntity",
                        selectSet=[
                            PC.SelectionSpec(name="folder"),
                            PC.TraversalSpec(
                                name="datacenter",
                                type=vim.Datacenter,
                                path="vmFolder",
                                selectSet=[PC.SelectionSpec(name="folder")],
                            ),
                        ],
                    )
                ],
            )
        ],
        propSet=[PC.PropertySpec(type=vim.ManagedEntity, pathSet=["name", "parent"])],
    )
    (page,) = [content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())]
    assert [type(one.obj).__name__ for one in page.objects] == [
        "vim.Folder",
        "vim.Datacenter",
        "vim.Folder",
        "vim.VirtualMachine",
    ]


def test_values_of_any_type_arrive_typed(api: Any, vm: SimulatedVm, seen_vm: Any) -> None:
    content = api.RetrieveContent()
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=seen_vm)],
        propSet=[PC.PropertySpec(type=vim.VirtualMachine, all=True)],
    )
    page = content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())
    values = {one.name: one.val for one in page.objects[0].propSet}
    assert isinstance(values["config"], vim.vm.ConfigInfo)
    assert isinstance(values["datastore"][0], vim.Datastore)
    assert isinstance(values["overallStatus"], vim.ManagedEntity.Status)
    assert "snapshot" not in values  # unset properties are left out
    one_path = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=seen_vm)],
        propSet=[
            PC.PropertySpec(
                type=vim.VirtualMachine,
                pathSet=["config.hardware.device[2000].capacityInBytes", "runtime.powerState"],
            )
        ],
    )
    page = content.propertyCollector.RetrievePropertiesEx([one_path], PC.RetrieveOptions())
    assert [one.val for one in page.objects[0].propSet] == [16 * MIB, "poweredOn"]


@pytest.mark.parametrize("path", ["nonsense", "config.nonsense", "name.x", "config..name", ""])
def test_property_that_does_not_exist_is_invalid(api: Any, seen_vm: Any, path: str) -> None:
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=seen_vm)],
        propSet=[PC.PropertySpec(type=vim.VirtualMachine, pathSet=[path])],
    )
    with pytest.raises(vmodl.query.InvalidProperty):
        api.RetrieveContent().propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())


def test_object_that_is_gone_is_not_found(api: Any, site: SimulatedSite, seen_vm: Any) -> None:
    site.remove_vm(site.vms[0])
    with pytest.raises(vmodl.fault.ManagedObjectNotFound) as missing:
        seen_vm.name  # noqa: B018
    assert missing.value.obj == seen_vm


def test_method_of_another_type_is_not_found(api: Any, seen_vm: Any) -> None:
    wrong = vim.vm.Snapshot(seen_vm._moId, api._stub)
    with pytest.raises(vmodl.fault.MethodNotFound):
        wrong.RevertToSnapshot_Task()


def test_unset_property_reads_as_none(seen_vm: Any) -> None:
    assert seen_vm.snapshot is None
    assert seen_vm.rootSnapshot == []


def test_search_finds_vms_by_uuid_and_path(api: Any, vm: SimulatedVm, seen_vm: Any) -> None:
    search = api.RetrieveContent().searchIndex
    assert search.FindByUuid(None, vm.uuid, True, False) == seen_vm
    assert search.FindByUuid(None, vm.instance_uuid.upper(), True, True) == seen_vm
    assert search.FindByUuid(None, vm.instance_uuid, True, False) is None
    assert search.FindByInventoryPath("ha-datacenter/vm/db 1") == seen_vm
    assert search.FindByInventoryPath("ha-datacenter/vm/none") is None


def test_files_of_snapshots_and_their_chains_are_told(
    api: Any, vm: SimulatedVm, seen_vm: Any
) -> None:
    one = take_snapshot(seen_vm, "one")
    two = take_snapshot(seen_vm, "two")
    layout = seen_vm.layoutEx
    names = {file.key: file.name for file in layout.file}
    chains = {
        of_snapshot.key: [
            names[unit.fileKey[0]] for disk in of_snapshot.disk for unit in disk.chain
        ]
        for of_snapshot in layout.snapshot
    }
    assert chains == {
        one: ["[datastore1] db 1/db 1.vmdk", "[datastore1] db 1/db 1_1.vmdk"],
        two: [
            "[datastore1] db 1/db 1.vmdk",
            "[datastore1] db 1/db 1-000001.vmdk",
            "[datastore1] db 1/db 1_1.vmdk",
            "[datastore1] db 1/db 1_1-000001.vmdk",
        ],
    }
    assert [len(disk.chain) for disk in layout.disk] == [3, 3]
    assert len(set(names.values())) == len(names)  # each file once
    assert [names[of_snapshot.dataKey] for of_snapshot in layout.snapshot] == [
        "[datastore1] db 1/db 1-Snapshot1.vmsn",
        "[datastore1] db 1/db 1-Snapshot2.vmsn",
    ]
