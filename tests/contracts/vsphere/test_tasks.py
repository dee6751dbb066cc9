"""Tasks: what their `info` says while they run, when they end well, and when they fail."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyVmomi import vim

from tests.contracts.vsphere.calls import PC, finish, one_object, snapshot_of

pytestmark = pytest.mark.hostile


def test_info_says_what_is_done_to_what(vm: Any) -> None:
    task = vm.CreateSnapshot_Task("one", "", False, False)
    info = task.info
    assert isinstance(task, vim.Task)
    assert info.task == task
    assert info.key == task._moId
    assert info.entity == vm
    assert info.state in ("queued", "running", "success")
    assert isinstance(info.reason, vim.TaskReasonUser)
    finish(task)


def test_info_names_the_entity_and_the_method(vm: Any) -> None:
    task = vm.CreateSnapshot_Task("one", "", False, False)
    assert task.info.entityName == vm.name
    assert task.info.name.info.wsdlName == "CreateSnapshot_Task"
    assert task.info.descriptionId == "VirtualMachine.createSnapshot"
    finish(task)


def test_end_is_told_with_times_and_a_result(vm: Any) -> None:
    task = vm.CreateSnapshot_Task("one", "", False, False)
    result = finish(task)
    info = task.info
    assert info.state == "success"
    assert isinstance(info.result, vim.vm.Snapshot)
    assert info.result == result
    assert info.error is None
    assert info.queueTime <= info.startTime <= info.completeTime
    assert abs(datetime.now(UTC) - info.completeTime) < timedelta(minutes=5)
    assert not info.cancelled


def test_task_without_a_result_has_none(vm: Any) -> None:
    snapshot = snapshot_of(vm, "one")
    task = snapshot.RemoveSnapshot_Task(False, True)
    assert finish(task) is None
    assert task.info.entity == vm


def test_failure_is_told_with_its_fault(vm: Any) -> None:
    task = vm.PowerOnVM_Task()
    with pytest.raises(vim.fault.InvalidPowerState):
        finish(task)
    info = task.info
    assert info.state == "error"
    assert info.result is None
    assert info.error.existingState == "poweredOn"
    assert info.error.requestedState == "poweredOn"
    assert info.error.msg
    assert info.completeTime is not None


def test_wait_by_a_filter_on_everything_sees_the_end(content: Any, vm: Any) -> None:
    collector = content.propertyCollector.CreatePropertyCollector()
    task = vm.CreateSnapshot_Task("one", "", False, False)
    collector.CreateFilter(one_object(task, everything=True), True)
    info: Any = None
    version = ""
    while info is None or info.state not in ("success", "error"):
        update = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=10))
        assert update is not None
        version = update.version
        for change in update.filterSet[0].objectSet[0].changeSet:
            if change.name == "info":
                info = change.val
            elif change.name == "info.state":
                info.state = change.val
    assert info.state == "success"
    assert info.result == vm.snapshot.currentSnapshot


def test_task_that_ended_is_a_recent_one(content: Any, vm: Any) -> None:
    task = vm.CreateSnapshot_Task("one", "", False, False)
    finish(task)
    assert task in content.taskManager.recentTask
    assert task in vm.recentTask


def test_power_tasks_do_what_they_say(vm: Any) -> None:
    finish(vm.PowerOffVM_Task())
    assert vm.runtime.powerState == "poweredOff"
    with pytest.raises(vim.fault.InvalidPowerState):
        finish(vm.PowerOffVM_Task())
    finish(vm.PowerOnVM_Task())
    assert vm.runtime.powerState == "poweredOn"
