"""VMs over gRPC: pages, filters, and which of them have a restore point."""

from collections.abc import Callable

import grpc
import pytest

from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2, repository_pb2
from sendense.v1 import inventory_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm
from tests.unit.hub.running_hub import RunningHub, refusal

Agents = Callable[..., FakeAgent]
Code = grpc.StatusCode
T = 20
PROTECTED = pb.PROTECTION_PROTECTED
NOT_PROTECTED = pb.PROTECTION_NOT_PROTECTED


def listed(hub: RunningHub, **wanted: object) -> list[pb.VirtualMachine]:
    request = pb.ListVirtualMachinesRequest(**wanted)
    return list(hub.inventory.ListVirtualMachines(request, timeout=T).virtual_machines)


def names(hub: RunningHub, **wanted: object) -> list[str]:
    return [vm.name for vm in listed(hub, **wanted)]


def paged(hub: RunningHub, **wanted: object) -> list[list[tuple[str, str, str]]]:
    pages, token = [], ""
    while True:
        request = pb.ListVirtualMachinesRequest(page_token=token, **wanted)
        answer = hub.inventory.ListVirtualMachines(request, timeout=T)
        pages.append([(vm.name, vm.site, vm.vmware_vm_id) for vm in answer.virtual_machines])
        token = answer.next_page_token
        if not token:
            return pages


def backed_up(hub: RunningHub, agent: FakeAgent, vm: str, **more: str) -> backup_pb2.Backup:
    job = hub.start(vm, **more)
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk("AB.C")])
    ended = hub.wait(job.job_id)
    assert ended.status == backup_pb2.BACKUP_STATUS_COMPLETED
    return ended


def test_pages_come_in_the_order_of_name_site_and_moref(hub: RunningHub, agents: Agents) -> None:
    agents(
        "lab",
        FakeVm("same", "vm-2", "u-2"),
        FakeVm("same", "vm-1", "u-1"),
        FakeVm("Zürich", "vm-3", "u-3"),
    )
    agents("far", FakeVm("same", "vm-9", "u-9"), FakeVm("able", "vm-8", "u-8"))
    assert paged(hub, page_size=2) == [
        [("Zürich", "lab", "vm-3"), ("able", "far", "vm-8")],
        [("same", "far", "vm-9"), ("same", "lab", "vm-1")],
        [("same", "lab", "vm-2")],
    ]
    assert paged(hub, page_size=2, site="lab", name="same") == [
        [("same", "lab", "vm-1"), ("same", "lab", "vm-2")]
    ]


def test_page_goes_on_where_the_last_one_ended_when_vms_come_and_go(
    hub: RunningHub, agent: FakeAgent
) -> None:
    agent.vms = [FakeVm(name, f"vm-{name}", f"u-{name}") for name in "bdfh"]
    agent.report()
    request = pb.ListVirtualMachinesRequest(page_size=2)
    first = hub.inventory.ListVirtualMachines(request, timeout=T)
    assert [vm.name for vm in first.virtual_machines] == ["b", "d"]
    agent.vms = [FakeVm(name, f"vm-{name}", f"u-{name}") for name in "acefg"]
    agent.report()
    assert names(hub, page_token=first.next_page_token) == ["e", "f", "g"]


def test_vm_is_protected_by_its_newest_restore_point_in_any_repository(
    hub: RunningHub, agents: Agents, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("more") / "cellar"
    request = repository_pb2.CreateRepositoryRequest(name="cellar", path=str(folder))
    hub.repositories.CreateRepository(request, timeout=T)
    agent = agents("lab", FakeVm("one", "vm-1", "u-1"), FakeVm("two", "vm-2", "u-2"))
    # The uuid of a VM of another site is another VM.
    agents("far", FakeVm("three", "vm-1", "u-1"))
    assert names(hub, protection=PROTECTED) == []
    backed_up(hub, agent, "one")
    newest = backed_up(hub, agent, "one", repository="cellar")
    (one,) = listed(hub, protection=PROTECTED)
    assert (one.name, one.is_protected, one.last_backup_id) == ("one", True, newest.job_id)
    assert one.last_backup_at == newest.completed_at
    assert names(hub, protection=NOT_PROTECTED) == ["three", "two"]
    assert [(vm.name, vm.is_protected) for vm in listed(hub)] == [
        ("one", True),
        ("three", False),
        ("two", False),
    ]
    assert names(hub, protection=NOT_PROTECTED, site="lab") == ["two"]
    assert paged(hub, protection=NOT_PROTECTED, page_size=1) == [
        [("three", "far", "vm-1")],
        [("two", "lab", "vm-2")],
    ]


def test_instance_uuid_in_another_case_is_the_same_vm(hub: RunningHub, agent: FakeAgent) -> None:
    agent.vms = [FakeVm("one", "vm-1", "50AB-1")]
    agent.report()
    job = backed_up(hub, agent, "one")
    agent.vms = [FakeVm("one, renamed", "vm-7", "50ab-1")]
    agent.report()
    (one,) = listed(hub, protection=PROTECTED)
    assert (one.name, one.last_backup_id) == ("one, renamed", job.job_id)


def test_deleted_restore_point_protects_no_more(hub: RunningHub, agent: FakeAgent) -> None:
    first = backed_up(hub, agent, "pgtest1")
    second = backed_up(hub, agent, "pgtest1")
    for deleted, left in ((second, first.job_id), (first, "")):
        request = backup_pb2.DeleteBackupRequest(job_id=deleted.job_id)
        hub.backups.DeleteBackup(request, timeout=T)
        (vm,) = listed(hub)
        assert (vm.last_backup_id, vm.is_protected) == (left, bool(left))
        assert vm.HasField("last_backup_at") is bool(left)


def test_failed_backup_protects_nothing(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.send(
        job_failed=session_pb.JobFailed(
            job_id=job.job_id, error=backup_pb2.BackupError(reason="BROKEN", message="it broke")
        )
    )
    assert hub.wait(job.job_id).status == backup_pb2.BACKUP_STATUS_FAILED
    assert names(hub, protection=PROTECTED) == []
    assert names(hub, protection=NOT_PROTECTED) == ["pgtest1"]


def test_agent_that_calls_a_vm_protected_is_not_believed(hub: RunningHub, agent: FakeAgent) -> None:
    vm = FakeVm().message()
    vm.is_protected, vm.last_backup_id = True, "backup-of-nobody"
    vm.last_backup_at.GetCurrentTime()
    agent.vms = []
    agent.send(inventory=session_pb.AgentInventory(virtual_machines=[vm]))
    agent.send(job_failed=session_pb.JobFailed(job_id="sync"))
    agent.closed("sync")
    (found,) = listed(hub)
    assert (found.is_protected, found.last_backup_id) == (False, "")
    assert not found.HasField("last_backup_at")


def test_vm_without_an_instance_uuid_is_not_protected(hub: RunningHub, agent: FakeAgent) -> None:
    backed_up(hub, agent, "pgtest1")
    agent.vms = [FakeVm("bare", "vm-5", ""), FakeVm()]
    agent.report()
    assert names(hub, protection=NOT_PROTECTED) == ["bare"]


def test_inventory_of_an_agent_that_is_away_stays_listed(hub: RunningHub, agent: FakeAgent) -> None:
    assert [vm.agent_connected for vm in listed(hub)] == [True]
    agent.close()
    hub.wait_until_away("lab")
    assert [vm.agent_connected for vm in listed(hub)] == [False]


@pytest.mark.parametrize(
    "wanted", [{"page_size": -1}, {"page_size": 1001}, {"page_token": "?"}, {"protection": 9}]
)
def test_unusable_request_is_refused(
    hub: RunningHub, agent: FakeAgent, wanted: dict[str, object]
) -> None:
    assert refusal(lambda: listed(hub, **wanted))[0] == Code.INVALID_ARGUMENT


def test_unknown_site_is_not_found(hub: RunningHub, agent: FakeAgent) -> None:
    assert refusal(lambda: listed(hub, site="nowhere"))[:2] == (Code.NOT_FOUND, "SITE_NOT_FOUND")
