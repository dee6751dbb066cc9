"""The property collector: what is selected, which values come, in which pages."""

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.contracts.vsphere.calls import (
    PC,
    members,
    one_object,
    retrieve,
    values,
    virtual_machines,
)

pytestmark = pytest.mark.hostile


def test_paths_lead_into_data_objects(content: Any, vm: Any) -> None:
    paths = ("name", "runtime.powerState", "config.hardware.device", "config.files.vmPathName")
    (item,) = retrieve(content, one_object(vm, *paths)).objects
    seen = values(item)
    assert set(seen) == set(paths)
    assert seen["name"] == vm.name
    assert seen["runtime.powerState"] == "poweredOn"
    assert [one.key for one in seen["config.hardware.device"]] == [
        one.key for one in vm.config.hardware.device
    ]


def test_element_of_an_array_is_found_by_its_key(content: Any, vm: Any) -> None:
    device = vm.config.hardware.device[-1]
    path = f"config.hardware.device[{device.key}].deviceInfo.label"
    (item,) = retrieve(content, one_object(vm, path)).objects
    assert values(item) == {path: device.deviceInfo.label}


def test_unset_property_reads_as_nothing(vm: Any) -> None:
    assert vm.snapshot is None


def test_unset_properties_are_left_out(content: Any, vm: Any) -> None:
    (item,) = retrieve(content, one_object(vm, "name", "snapshot")).objects
    assert set(values(item)) == {"name"}
    assert not item.missingSet


@pytest.mark.parametrize("path", ["nonsense", "config.nonsense", "name.x", "config..name"])
def test_property_that_no_type_has_is_invalid(content: Any, vm: Any, path: str) -> None:
    with pytest.raises(vmodl.query.InvalidProperty) as refused:
        retrieve(content, one_object(vm, path))
    assert refused.value.name == path


def test_object_that_does_not_exist_is_not_found(api: Any, content: Any) -> None:
    nobody = vim.VirtualMachine("no-such-vm", api._stub)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound) as refused:
        retrieve(content, one_object(nobody, "name"))
    assert refused.value.obj == nobody


def test_missing_objects_are_left_out_when_asked(api: Any, content: Any, vm: Any) -> None:
    nobody = vim.VirtualMachine("no-such-vm", api._stub)
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=nobody), PC.ObjectSpec(obj=vm)],
        propSet=[PC.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
        reportMissingObjectsInResults=True,
    )
    assert [one.obj for one in retrieve(content, spec).objects] == [vm]


def test_object_that_two_ways_lead_to_comes_once(content: Any, vm: Any) -> None:
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=vm), PC.ObjectSpec(obj=vm)],
        propSet=[PC.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
    )
    assert [one.obj for one in retrieve(content, spec).objects] == [vm]


def test_skipped_root_is_passed_through(content: Any, vm: Any) -> None:
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    found = retrieve(content, members(view, vim.VirtualMachine, "name")).objects
    assert {one.obj for one in found} == set(view.view)
    assert {values(one)["name"] for one in found} == {one.name for one in view.view}


def test_object_of_a_type_without_a_spec_does_not_come(content: Any, vm: Any) -> None:
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=vm)],
        propSet=[PC.PropertySpec(type=vim.HostSystem, pathSet=["name"])],
    )
    found = retrieve(content, spec)
    assert found is None or not found.objects


def test_several_specs_are_answered_together(content: Any, vm: Any) -> None:
    host = vm.runtime.host
    found = retrieve(content, one_object(vm, "name"), one_object(host, "name")).objects
    assert {one.obj: values(one)["name"] for one in found} == {vm: vm.name, host: host.name}


def test_single_values_agree_with_the_collector(content: Any, vm: Any) -> None:
    (item,) = retrieve(content, one_object(vm, "summary.config.name", "runtime.host")).objects
    assert values(item) == {"summary.config.name": vm.name, "runtime.host": vm.runtime.host}


def test_pages_follow_each_other_by_their_tokens(content: Any) -> None:
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    expected = set(view.view)
    page = retrieve(content, members(view, vim.VirtualMachine, "name"), size=1)
    seen = [one.obj for one in page.objects]
    tokens = []
    while page.token:
        assert len(page.objects) == 1
        tokens.append(page.token)
        page = content.propertyCollector.ContinueRetrievePropertiesEx(page.token)
        seen += [one.obj for one in page.objects]
    assert len(seen) == len(expected) >= 2
    assert set(seen) == expected
    with pytest.raises(vmodl.fault.InvalidArgument):
        content.propertyCollector.ContinueRetrievePropertiesEx(tokens[0])


def test_cancelled_pages_cannot_be_fetched(content: Any) -> None:
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    page = retrieve(content, members(view, vim.VirtualMachine, "name"), size=1)
    content.propertyCollector.CancelRetrievePropertiesEx(page.token)
    with pytest.raises(vmodl.fault.InvalidArgument):
        content.propertyCollector.ContinueRetrievePropertiesEx(page.token)


def test_older_call_answers_everything_at_once(content: Any) -> None:
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    spec = members(view, vim.VirtualMachine, "name")
    found = content.propertyCollector.RetrieveProperties([spec])
    assert {one.obj for one in found} == set(virtual_machines(content))
