"""Waiting for changes: filters, versions, and how waits end."""

import threading
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.contracts.vsphere.calls import PC, finish, one_object, snapshot_of
from tests.contracts.vsphere.hosts import Host

pytestmark = pytest.mark.hostile

NOW = PC.WaitOptions(maxWaitSeconds=0)
SOON = PC.WaitOptions(maxWaitSeconds=10)


@pytest.fixture
def collector(content: Any) -> Any:
    """A collector of the test's own; it ends with the session."""
    return content.propertyCollector.CreatePropertyCollector()


def changes(update: Any) -> dict[str, Any]:
    """Path and new value of all changes of an UpdateSet's only object."""
    (of_filter,) = update.filterSet
    (of_object,) = of_filter.objectSet
    return {one.name: one.val for one in of_object.changeSet}


def test_first_wait_tells_all_that_is_watched(collector: Any, vm: Any) -> None:
    watched = collector.CreateFilter(one_object(vm, "name", "runtime.powerState"), True)
    update = collector.WaitForUpdatesEx("", SOON)
    assert update.version
    assert update.filterSet[0].filter == watched
    assert update.filterSet[0].objectSet[0].kind == "enter"
    assert update.filterSet[0].objectSet[0].obj == vm
    assert changes(update) == {"name": vm.name, "runtime.powerState": "poweredOn"}


def test_wait_without_a_change_ends_empty(collector: Any, vm: Any) -> None:
    collector.CreateFilter(one_object(vm, "name"), True)
    first = collector.WaitForUpdatesEx("", SOON)
    assert collector.WaitForUpdatesEx(first.version, NOW) is None


def test_wait_tells_only_what_changed(collector: Any, vm: Any) -> None:
    collector.CreateFilter(one_object(vm, "name", "runtime.powerState"), True)
    first = collector.WaitForUpdatesEx("", SOON)
    finish(vm.PowerOffVM_Task())
    update = collector.WaitForUpdatesEx(first.version, SOON)
    assert update.filterSet[0].objectSet[0].kind == "modify"
    assert changes(update) == {"runtime.powerState": "poweredOff"}
    assert collector.WaitForUpdatesEx(update.version, NOW) is None


def test_version_moves_on_with_a_change(collector: Any, vm: Any) -> None:
    collector.CreateFilter(one_object(vm, "runtime.powerState"), True)
    first = collector.WaitForUpdatesEx("", SOON)
    finish(vm.PowerOffVM_Task())
    assert collector.WaitForUpdatesEx(first.version, SOON).version != first.version


def test_new_name_is_told(collector: Any, vm: Any) -> None:
    collector.CreateFilter(one_object(vm, "name"), True)
    first = collector.WaitForUpdatesEx("", SOON)
    finish(vm.ReconfigVM_Task(vim.vm.ConfigSpec(name="another name")))
    update = collector.WaitForUpdatesEx(first.version, PC.WaitOptions(maxWaitSeconds=2))
    assert update is not None
    assert changes(update) == {"name": "another name"}


def test_wait_sleeps_until_something_changes(host: Host, collector: Any, vm: Any) -> None:
    collector.CreateFilter(one_object(vm, "snapshot"), True)
    first = collector.WaitForUpdatesEx("", SOON)
    other = host.connect()
    same = vim.VirtualMachine(vm._moId, other._stub)
    worker = threading.Timer(0.2, snapshot_of, (same, "while waiting"))
    worker.start()
    try:
        update = collector.WaitForUpdatesEx(first.version, SOON)
    finally:
        worker.join(30)
    assert changes(update)["snapshot"].rootSnapshotList[0].name == "while waiting"
    other.RetrieveContent().sessionManager.Logout()


def test_property_that_became_unset_is_told_without_a_value(collector: Any, vm: Any) -> None:
    snapshot = snapshot_of(vm, "for a while")
    collector.CreateFilter(one_object(vm, "snapshot"), True)
    first = collector.WaitForUpdatesEx("", SOON)
    assert changes(first)["snapshot"].currentSnapshot == snapshot
    finish(snapshot.RemoveSnapshot_Task(False, True))
    update = collector.WaitForUpdatesEx(first.version, SOON)
    assert changes(update) == {"snapshot": None}


def test_empty_version_tells_everything_again(collector: Any, vm: Any) -> None:
    collector.CreateFilter(one_object(vm, "name"), True)
    collector.WaitForUpdatesEx("", SOON)
    assert changes(collector.WaitForUpdatesEx("", SOON)) == {"name": vm.name}


def test_version_that_was_never_told_is_invalid(collector: Any, vm: Any) -> None:
    collector.CreateFilter(one_object(vm, "name"), True)
    collector.WaitForUpdatesEx("", SOON)
    with pytest.raises(vmodl.query.InvalidCollectorVersion):
        collector.WaitForUpdatesEx("4711", NOW)


def test_filter_that_was_destroyed_tells_nothing(collector: Any, vm: Any) -> None:
    watched = collector.CreateFilter(one_object(vm, "runtime.powerState"), True)
    first = collector.WaitForUpdatesEx("", SOON)
    watched.Destroy()
    finish(vm.PowerOffVM_Task())
    assert collector.WaitForUpdatesEx(first.version, NOW) is None
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        watched.Destroy()


@pytest.mark.parametrize("path", ["nonsense", "config.nonsense"])
def test_filter_with_a_wrong_path_is_refused(collector: Any, vm: Any, path: str) -> None:
    with pytest.raises(vmodl.query.InvalidProperty):
        collector.CreateFilter(one_object(vm, path), True)


def test_filter_on_what_does_not_exist_is_refused(api: Any, collector: Any) -> None:
    nobody = vim.VirtualMachine("no-such-vm", api._stub)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        collector.CreateFilter(one_object(nobody, "name"), True)


def test_cancelled_wait_ends_at_once(host: Host, api: Any, collector: Any, vm: Any) -> None:
    collector.CreateFilter(one_object(vm, "name"), True)
    first = collector.WaitForUpdatesEx("", SOON)
    canceller = threading.Timer(0.3, collector.CancelWaitForUpdates)
    canceller.start()
    try:
        with pytest.raises(vmodl.fault.RequestCanceled):
            collector.WaitForUpdatesEx(first.version, SOON)
    finally:
        canceller.join(30)


def test_collectors_watch_independently(content: Any, vm: Any) -> None:
    create = content.propertyCollector.CreatePropertyCollector
    one, two = create(), create()
    one.CreateFilter(one_object(vm, "name"), True)
    two.CreateFilter(one_object(vm, "runtime.powerState"), True)
    assert changes(one.WaitForUpdatesEx("", SOON)) == {"name": vm.name}
    assert changes(two.WaitForUpdatesEx("", SOON)) == {"runtime.powerState": "poweredOn"}


def test_collector_that_was_destroyed_is_not_found(collector: Any, vm: Any) -> None:
    watched = collector.CreateFilter(one_object(vm, "name"), True)
    collector.Destroy()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        collector.WaitForUpdatesEx("", NOW)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        watched.Destroy()
