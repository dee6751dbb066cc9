"""The inventory: folders, views, search, and a VM's devices."""

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.contracts.vsphere.calls import PC, disks_of, one_object, read, retrieve, values

pytestmark = pytest.mark.hostile


def ancestors(entity: Any) -> list[Any]:
    """The entity, its parent, and so on."""
    found = [entity]
    while (parent := read(found[-1], "parent")) is not None:
        found.append(parent)
    return found


def test_every_entity_leads_back_to_the_root(content: Any) -> None:
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.ManagedEntity], True)
    entities = list(view.view)
    for entity in entities:
        assert ancestors(entity)[-1] == content.rootFolder
    kinds = {type(entity) for entity in entities}
    assert {vim.Datacenter, vim.Folder, vim.HostSystem, vim.VirtualMachine} <= kinds
    assert {vim.ResourcePool, vim.Datastore, vim.ComputeResource} <= kinds


def test_folders_lead_to_the_vms(content: Any, vm: Any) -> None:
    (datacenter,) = content.rootFolder.childEntity
    assert isinstance(datacenter, vim.Datacenter)
    assert vm in datacenter.vmFolder.childEntity
    assert "VirtualMachine" in datacenter.vmFolder.childType
    host = vm.runtime.host
    assert vm in host.vm
    assert isinstance(host.parent, vim.ComputeResource)
    (datastore,) = vm.datastore
    assert vm in datastore.vm
    assert datastore in datacenter.datastore
    assert isinstance(vm.resourcePool, vim.ResourcePool)
    assert vm in vm.resourcePool.vm


def test_view_holds_only_its_types(content: Any) -> None:
    kinds = [vim.VirtualMachine, vim.HostSystem]
    view = content.viewManager.CreateContainerView(content.rootFolder, kinds, True)
    assert {type(one) for one in view.view} == set(kinds)
    assert view.container == content.rootFolder
    assert view.recursive
    assert [str(one) for one in view.type] == ["VirtualMachine", "HostSystem"]


def test_view_that_is_not_recursive_stays_in_its_container(content: Any, vm: Any) -> None:
    folder = content.rootFolder.childEntity[0].vmFolder
    create = content.viewManager.CreateContainerView
    assert vm in create(folder, [vim.VirtualMachine], False).view
    assert list(create(content.rootFolder, [vim.VirtualMachine], False).view) == []


def test_view_of_what_does_not_exist_is_refused(api: Any, content: Any) -> None:
    nowhere = vim.Folder("no-such-folder", api._stub)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        content.viewManager.CreateContainerView(nowhere, [], True)


def test_destroyed_view_is_not_found(content: Any) -> None:
    view = content.viewManager.CreateContainerView(content.rootFolder, [], True)
    view.Destroy()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        view.Destroy()


def test_search_finds_a_vm_by_its_uuids_and_path(content: Any, vm: Any) -> None:
    search = content.searchIndex
    assert search.FindByUuid(None, vm.config.uuid, True, False) == vm
    assert search.FindByUuid(None, vm.config.instanceUuid, True, True) == vm
    assert search.FindByUuid(None, vm.config.instanceUuid, True, False) is None
    assert search.FindByUuid(None, "00000000-0000-0000-0000-000000000000", True, False) is None
    path = f"{content.rootFolder.childEntity[0].name}/vm/{vm.name}"
    assert search.FindByInventoryPath(path) == vm
    assert search.FindByInventoryPath(f"{path}/nothing") is None


def test_disks_name_their_controller_backing_and_size(vm: Any) -> None:
    devices = vm.config.hardware.device
    keys = [one.key for one in devices]
    assert len(set(keys)) == len(keys)
    disks = disks_of(devices)
    assert disks
    for disk in disks:
        controller = next(one for one in devices if one.key == disk.controllerKey)
        assert isinstance(controller, vim.vm.device.VirtualController)
        assert disk.key in controller.device
        assert disk.unitNumber is not None
        assert disk.capacityInBytes == disk.capacityInKB * 1024 > 0
        assert isinstance(disk.backing, vim.vm.device.VirtualDisk.FlatVer2BackingInfo)
        assert disk.backing.fileName.startswith(f"[{vm.datastore[0].name}] ")
        assert disk.backing.fileName.endswith(".vmdk")
        assert disk.backing.uuid
        assert disk.deviceInfo.label
    places = [(one.controllerKey, one.unitNumber) for one in disks]
    assert len(set(places)) == len(places)


def test_summary_agrees_with_the_configuration(vm: Any) -> None:
    summary, config = vm.summary, vm.config
    assert summary.vm == vm
    assert summary.config.name == config.name == vm.name
    assert summary.config.uuid == config.uuid
    assert summary.config.vmPathName == config.files.vmPathName
    assert summary.config.memorySizeMB == config.hardware.memoryMB
    assert summary.config.numCpu == config.hardware.numCPU
    assert summary.runtime.powerState == vm.runtime.powerState == "poweredOn"
    assert summary.config.template is False


def test_properties_of_a_base_type_are_read_of_all_its_kinds(content: Any, vm: Any) -> None:
    inside = PC.TraversalSpec(
        name="inside",
        type=vim.Folder,
        path="childEntity",
        selectSet=[PC.SelectionSpec(name="inside"), PC.SelectionSpec(name="vms")],
    )
    vms = PC.TraversalSpec(
        name="vms",
        type=vim.Datacenter,
        path="vmFolder",
        selectSet=[PC.SelectionSpec(name="inside")],
    )
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=content.rootFolder, skip=False, selectSet=[inside, vms])],
        propSet=[PC.PropertySpec(type=vim.ManagedEntity, pathSet=["name", "parent"])],
    )
    found = {one.obj: values(one) for one in retrieve(content, spec).objects}
    assert found[vm]["name"] == vm.name
    assert found[vm]["parent"] == vm.parent
    assert "parent" not in found[content.rootFolder]
    assert {type(one) for one in found} == {vim.Folder, vim.Datacenter, vim.VirtualMachine}


def test_ancestors_are_found_through_parents(content: Any, vm: Any) -> None:
    up = PC.TraversalSpec(
        name="up",
        type=vim.ManagedEntity,
        path="parent",
        skip=False,
        selectSet=[PC.SelectionSpec(name="up")],
    )
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=vm, skip=False, selectSet=[up])],
        propSet=[PC.PropertySpec(type=vim.ManagedEntity, pathSet=["name"])],
    )
    found = {one.obj for one in retrieve(content, spec).objects}
    assert found == set(ancestors(vm))


def test_values_of_any_type_arrive_typed(content: Any, vm: Any) -> None:
    (item,) = retrieve(content, one_object(vm, everything=True)).objects
    seen = values(item)
    assert isinstance(seen["config"], vim.vm.ConfigInfo)
    assert isinstance(seen["parent"], vim.Folder)
    assert isinstance(seen["datastore"][0], vim.Datastore)
    assert isinstance(seen["overallStatus"], vim.ManagedEntity.Status)
    assert isinstance(seen["name"], str)
    assert "snapshot" not in seen
