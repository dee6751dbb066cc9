"""Properties that the collector does not show, as pyVmomi sees it."""

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.unit.simulator.faults.conftest import Client

pytestmark = pytest.mark.hostile

_Collector = vmodl.query.PropertyCollector


def retrieved(client: Client, api: Any, *paths: str) -> Any:
    spec = _Collector.FilterSpec(
        propSet=[_Collector.PropertySpec(type=vim.VirtualMachine, pathSet=list(paths))],
        objectSet=[_Collector.ObjectSpec(obj=client.seen)],
    )
    collector = api.RetrieveContent().propertyCollector
    (found,) = collector.RetrievePropertiesEx([spec], _Collector.RetrieveOptions()).objects
    return found


def shown(found: Any) -> list[str]:
    return [one.name for one in found.propSet]


def test_hidden_property_is_named_with_its_reason(client: Client, api: Any) -> None:
    fault = client.site.faults.set("property-hidden", vm=client.vm.name, path="snapshot")
    found = retrieved(client, api, "name", "snapshot")
    assert shown(found) == ["name"]
    (missing,) = found.missingSet
    assert missing.path == "snapshot"
    assert isinstance(missing.fault, vmodl.fault.HostCommunication)
    assert fault.firings[-1].detail == {"path": "snapshot"}
    client.site.faults.clear()
    found = retrieved(client, api, "name", "snapshot")
    assert not found.missingSet


def test_all_below_a_hidden_property_is_hidden(client: Client, api: Any) -> None:
    client.site.faults.set(
        "property-hidden", vm=client.vm.name, path="config", fault="NoPermission"
    )
    found = retrieved(client, api, "name", "config.name", "config.hardware.device")
    assert shown(found) == ["name"]
    assert [one.path for one in found.missingSet] == ["config.name", "config.hardware.device"]
    assert all(isinstance(one.fault, vim.fault.NoPermission) for one in found.missingSet)
    client.site.faults.assert_all_fired()


def test_property_of_another_name_or_vm_is_shown(client: Client, api: Any) -> None:
    other = client.site.add_vm("other")
    client.site.faults.set("property-hidden", vm=client.vm.name, path="conf")
    client.site.faults.set("property-hidden", vm=other.name, path="config")
    found = retrieved(client, api, "name", "config.name")
    assert not found.missingSet
    assert shown(found) == ["name", "config.name"]
    assert [one.fired for one in client.site.faults.list()] == [0, 0]
