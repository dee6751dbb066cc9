"""Sessions, calls, tasks and snapshots that fail, as pyVmomi sees it.

Row 28 of the field's failures (a session that expires in mid-read) can be caused here.
"""

from collections.abc import Callable
from typing import Any, get_args

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

from simulator.faults.api_kinds import VimFaultName
from simulator.site import SimulatedSite
from tests.unit.simulator.conftest import take_snapshot
from tests.unit.simulator.faults.conftest import Client, consolidation_needed

pytestmark = pytest.mark.hostile
DEADLINE_S = 30


def login(client: Client, api: Any) -> None:
    api.RetrieveContent().sessionManager.Login(client.site.user, client.site.password, None)


def test_session_expires_at_the_call_that_was_counted(client: Client, api: Any) -> None:
    """Row 28."""
    fault = client.site.faults.set("session-expiry", skip=2, times=1)
    assert api.CurrentTime()
    assert api.CurrentTime()
    with pytest.raises(vim.fault.NotAuthenticated):
        api.CurrentTime()
    assert fault.firings[-1].detail == {"method": "CurrentTime"}
    assert client.site.sessions.all() == []
    login(client, api)
    assert api.CurrentTime()


def test_session_expires_at_the_method_that_was_named(client: Client, api: Any) -> None:
    client.site.faults.set("session-expiry", method="QueryChangedDiskAreas", times=1)
    assert client.seen.name
    with pytest.raises(vim.fault.NotAuthenticated):
        client.query()
    login(client, api)
    assert client.query()
    client.site.faults.assert_all_fired()


def test_session_expires_in_mid_read_and_the_read_goes_on(client: Client, api: Any) -> None:
    """Row 28: reads do not renew the session, and do not need it."""
    client.site.faults.set("session-expiry", on="read", skip=1, times=1)
    connection, handle = client.opened()
    assert connection.read(handle, 0, 512)
    assert api.CurrentTime()
    assert connection.read(handle, 0, 512)
    with pytest.raises(vim.fault.NotAuthenticated):
        api.CurrentTime()
    client.site.faults.assert_all_fired()


def test_views_of_an_expired_session_are_gone(client: Client, api: Any) -> None:
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    client.site.faults.set("session-expiry", method="CurrentTime", times=1)
    with pytest.raises(vim.fault.NotAuthenticated):
        api.CurrentTime()
    login(client, api)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        view.view  # noqa: B018 (each attribute read is a call)


def test_method_fails_for_one_vm_with_the_fault_that_was_named(
    client: Client, api: Any, site: SimulatedSite
) -> None:
    other = vim.VirtualMachine(site.add_vm("other").moid, api._stub)
    fault = site.faults.set(
        "method-fail", method="CreateSnapshot_Task", vm="db 1", fault="NoPermission"
    )
    assert take_snapshot(other, "fine")
    with pytest.raises(vim.fault.NoPermission):
        client.seen.CreateSnapshot_Task("not", "", False, False)
    assert fault.fired == 1


def test_lost_answer_took_effect(client: Client) -> None:
    client.site.faults.set("answer-lost", method="CreateSnapshot_Task", times=1)
    with pytest.raises(OSError):
        client.seen.CreateSnapshot_Task("lost", "", False, False)
    client.site.tasks.wait_all(DEADLINE_S)
    assert client.vm.snapshots[-1].name == "lost"
    client.site.faults.assert_all_fired()


def test_slow_task_runs_so_long(client: Client) -> None:
    fault = client.site.faults.set("task-slow", method="CreateSnapshot_Task", seconds=3600)
    task = client.seen.CreateSnapshot_Task("slow", "", False, False)
    assert fault.wait_fired(DEADLINE_S)
    assert task.info.state == "running"
    client.site.faults.clear(fault)
    WaitForTask(task)
    client.site.faults.set("task-slow", seconds=0.05, times=1)
    assert take_snapshot(client.seen, "a little slow")
    client.site.faults.assert_all_fired()


def test_stalled_task_of_one_vm_runs_until_the_fault_is_cleared(
    client: Client, api: Any, site: SimulatedSite
) -> None:
    other = vim.VirtualMachine(site.add_vm("other").moid, api._stub)
    fault = site.faults.set("task-stall", vm="db 1")
    task = client.seen.CreateSnapshot_Task("stalled", "", False, False)
    assert fault.wait_fired(DEADLINE_S)
    assert take_snapshot(other, "fine")
    assert task.info.state == "running"
    site.faults.clear(fault)
    WaitForTask(task)
    assert client.vm.snapshots[-1].name == "stalled"


@pytest.mark.parametrize("effect", [False, True])
def test_failed_task_did_its_work_or_not(client: Client, effect: bool) -> None:
    client.site.faults.set(
        "task-fail",
        vm="db 1",
        method="CreateSnapshot_Task",
        fault="FileLocked",
        effect=effect,
        times=1,
    )
    with pytest.raises(vim.fault.FileLocked):
        take_snapshot(client.seen, "failed")
    assert (client.vm.snapshots[-1].name == "failed") is effect
    assert take_snapshot(client.seen, "fine")
    client.site.faults.assert_all_fired()


@pytest.mark.parametrize("fault", get_args(VimFaultName))
def test_every_fault_can_be_read_by_who_waits_for_the_task(client: Client, fault: str) -> None:
    failing = client.site.faults.set("task-fail", vm="db 1", fault=fault, times=1)
    with pytest.raises(getattr(vim.fault, fault, None) or getattr(vmodl.fault, fault)):
        take_snapshot(client.seen, "failed")
    assert failing.fired == 1


@pytest.mark.parametrize("fault", ["FilesystemQuiesceFault", "ApplicationQuiesceFault"])
def test_quiesce_fails_and_a_snapshot_without_does_not(client: Client, fault: str) -> None:
    client.site.faults.set("quiesce-fail", vm="db 1", fault=fault)
    with pytest.raises(getattr(vim.fault, fault)):
        take_snapshot(client.seen, "quiesced", quiesce=True)
    assert len(client.vm.snapshots) == 2
    assert take_snapshot(client.seen, "crash-consistent")
    client.site.faults.assert_all_fired()
    client.site.faults.clear()
    take_snapshot(client.seen, "quiesced", quiesce=True)
    assert client.vm.snapshots[-1].quiesced


@pytest.mark.parametrize("times", [1, None], ids=["once", "for-ever"])
def test_removal_fails_once_or_for_ever(client: Client, times: int | None) -> None:
    """Row 21: a snapshot is left behind."""
    fault = client.site.faults.set("snapshot-remove-fail", vm="db 1", times=times)
    with pytest.raises(vim.fault.GenericVmConfigFault):
        WaitForTask(client.snapshot.RemoveSnapshot_Task(False, True))
    assert len(client.vm.snapshots) == 2
    if times is None:
        with pytest.raises(vim.fault.GenericVmConfigFault):
            WaitForTask(client.snapshot.RemoveSnapshot_Task(False, True))
        client.site.faults.clear(fault)
    WaitForTask(client.snapshot.RemoveSnapshot_Task(False, True))
    assert len(client.vm.snapshots) == 1
    assert not consolidation_needed(client)


def test_removal_that_fails_half_way_leaves_links_behind(client: Client) -> None:
    links = len(client.vm.links(client.vm.disks[0]))
    client.site.faults.set("snapshot-remove-fail", gone=True, fault="FileLocked", times=1)
    with pytest.raises(vim.fault.FileLocked):
        WaitForTask(client.snapshot.RemoveSnapshot_Task(False, True))
    assert len(client.vm.snapshots) == 1
    assert len(client.vm.links(client.vm.disks[0])) == links
    assert consolidation_needed(client)
    WaitForTask(client.seen.ConsolidateVMDisks_Task())
    assert not consolidation_needed(client)
    assert len(client.vm.links(client.vm.disks[0])) == links - 1


def test_consolidation_is_needed_until_it_was_done_as_often_as_ordered(client: Client) -> None:
    links = len(client.vm.links(client.vm.disks[0]))
    client.site.faults.set("consolidation-needed", vm="db 1", times=2)
    assert consolidation_needed(client)
    WaitForTask(client.snapshot.RemoveSnapshot_Task(False, True))
    assert len(client.vm.links(client.vm.disks[0])) == links
    WaitForTask(client.seen.ConsolidateVMDisks_Task())
    assert consolidation_needed(client)
    WaitForTask(client.seen.ConsolidateVMDisks_Task())
    assert not consolidation_needed(client)
    assert len(client.vm.links(client.vm.disks[0])) == links - 1
    client.site.faults.assert_all_fired()


def test_consolidation_need_goes_with_its_fault(client: Client) -> None:
    fault = client.site.faults.set("consolidation-needed", vm="db 1")
    WaitForTask(client.seen.ConsolidateVMDisks_Task())
    assert consolidation_needed(client)
    assert fault.fired == 1
    client.site.faults.clear(fault)
    assert not consolidation_needed(client)


@pytest.mark.parametrize(
    ("order", "chance"),
    [
        ({"name": "quiesce-fail"}, lambda client: client.task(quiesce=True)),
        ({"name": "snapshot-remove-fail"}, lambda client: client.task()),
        ({"name": "task-fail"}, lambda client: client.task()),
        ({"name": "task-stall"}, lambda client: client.task()),
        ({"name": "task-slow", "seconds": 3600}, lambda client: client.task()),
        (
            {"name": "method-fail", "method": "CreateSnapshot_Task"},
            lambda client: client.task(),
        ),
        (
            {"name": "consolidation-needed"},
            lambda client: WaitForTask(client.seen.ConsolidateVMDisks_Task()),
        ),
        ({"name": "change-id-uuid"}, lambda client: client.task()),
        ({"name": "change-id-missing"}, lambda client: client.task()),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_fault_of_another_vm_leaves_this_one_alone(
    client: Client, order: dict[str, Any], chance: Callable[[Client], Any]
) -> None:
    client.site.add_vm("other")
    fault = client.site.faults.set(vm="other", **order)
    chance(client)
    assert fault.fired == 0
