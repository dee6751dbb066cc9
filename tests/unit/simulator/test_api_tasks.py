"""The vSphere API, judged by pyVmomi: tasks, and waits for them."""

import threading
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.simulator.conftest import take_snapshot
from tests.unit.simulator.view_filters import view_filter

PC = vmodl.query.PropertyCollector


def test_wait_for_updates_tells_how_a_task_ends(api: Any, seen_vm: Any) -> None:
    collector = api.RetrieveContent().propertyCollector.CreatePropertyCollector()
    task = seen_vm.CreateSnapshot_Task("one", "a test", False, False)
    watched = collector.CreateFilter(
        PC.FilterSpec(
            objectSet=[PC.ObjectSpec(obj=task)],
            propSet=[PC.PropertySpec(type=vim.Task, pathSet=["info.state", "info.result"])],
        ),
        True,
    )
    version = ""
    state = ""
    while state not in ("success", "error"):
        update = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=30))
        version = update.version
        for one in update.filterSet[0].objectSet[0].changeSet:
            if one.name == "info.state":
                state = one.val
    assert state == "success"
    watched.Destroy()
    assert task.info.result.config.name == "db 1"
    assert task.info.descriptionId == "VirtualMachine.createSnapshot"
    collector.Destroy()


def test_task_filter_with_all_and_no_paths_gets_the_whole_info(api: Any, seen_vm: Any) -> None:
    collector = api.RetrieveContent().propertyCollector
    task = seen_vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True))
    watched = collector.CreateFilter(
        PC.FilterSpec(
            objectSet=[PC.ObjectSpec(obj=task)],
            propSet=[PC.PropertySpec(type=vim.Task, all=True, pathSet=[])],
        ),
        True,
    )
    update = collector.WaitForUpdates(None)
    (change,) = update.filterSet[0].objectSet[0].changeSet
    assert change.name == "info"
    assert change.val.key == task._moId
    assert change.val.name.info.wsdlName == "ReconfigVM_Task"
    watched.Destroy()


def test_wait_ends_empty_when_nothing_changes_in_time(api: Any, seen_vm: Any) -> None:
    collector = api.RetrieveContent().propertyCollector
    collector.CreateFilter(
        PC.FilterSpec(
            objectSet=[PC.ObjectSpec(obj=seen_vm)],
            propSet=[PC.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
        ),
        False,
    )
    first = collector.WaitForUpdatesEx("", None)
    assert collector.WaitForUpdatesEx(first.version, PC.WaitOptions(maxWaitSeconds=0)) is None
    with pytest.raises(vmodl.query.InvalidCollectorVersion):
        collector.WaitForUpdatesEx("4711", None)


def test_wait_wakes_when_a_vm_appears_and_when_it_leaves(
    api: Any, site: SimulatedSite, vm: SimulatedVm
) -> None:
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    collector = content.propertyCollector.CreatePropertyCollector()
    collector.CreateFilter(view_filter(view, vim.VirtualMachine, ["name"]), True)
    version = collector.WaitForUpdatesEx("", None).version

    def next_update(change: Any) -> Any:
        worker = threading.Timer(0.05, change)
        worker.start()
        try:
            return collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=30))
        finally:
            worker.join(30)

    update = next_update(lambda: site.add_vm("new"))
    (entered,) = update.filterSet[0].objectSet
    assert (entered.kind, entered.changeSet[0].val) == ("enter", "new")
    version = update.version
    update = next_update(lambda: site.remove_vm(site.vm("new")))
    (left,) = update.filterSet[0].objectSet
    assert left.kind == "leave"


def test_cancelled_wait_ends_with_request_canceled(
    api: Any, site: SimulatedSite, seen_vm: Any
) -> None:
    collector = api.RetrieveContent().propertyCollector.CreatePropertyCollector()
    collector.CreateFilter(
        PC.FilterSpec(
            objectSet=[PC.ObjectSpec(obj=seen_vm)],
            propSet=[PC.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
        ),
        True,
    )
    version = collector.WaitForUpdatesEx("", None).version
    canceller = threading.Timer(0.2, collector.CancelWaitForUpdates)
    canceller.start()
    with pytest.raises(vmodl.fault.RequestCanceled):
        collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=30))
    canceller.join(30)


def test_ordered_method_fault_fires_as_often_as_ordered(
    api: Any, site: SimulatedSite, seen_vm: Any
) -> None:
    site.faults.fail_method("CreateSnapshot_Task")
    with pytest.raises(vmodl.fault.SystemError):
        seen_vm.CreateSnapshot_Task("one", "", False, False)
    site.faults.fail_task("CreateSnapshot_Task")
    with pytest.raises(vmodl.fault.SystemError):
        take_snapshot(seen_vm, "two")
    assert site.vms[0].snapshots == []
    assert take_snapshot(seen_vm, "three")
    site.faults.assert_all_fired()
