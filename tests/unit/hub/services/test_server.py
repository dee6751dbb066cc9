"""The server around the services: health, reflection, watches, limits."""

from collections.abc import Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from hub.config import loopback_address
from hub.services import stream_slots
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import context_pb2, inventory_pb2, restore_pb2
from shared.errors import ConfigurationError
from tests.unit.hub.fake_agent import FakeAgent
from tests.unit.hub.running_hub import RunningHub, refusal

Code = grpc.StatusCode


def test_health_and_reflection_answer(hub: RunningHub) -> None:
    check = health_pb2_grpc.HealthStub(hub.channel).Check
    for service in ("", "sendense.v1.BackupService"):
        answer = check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    services = ProtoReflectionDescriptorDatabase(hub.channel).get_services()
    assert {name.rpartition(".")[2] for name in services} == {
        "AgentService",
        "AgentSessionService",
        "BackupService",
        "ContextService",
        "DiskService",
        "Health",
        "HubService",
        "InventoryService",
        "RepositoryService",
        "RestoreService",
        "ServerReflection",
        "StatisticsService",
        "UploadService",
    }


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda h: h.get("nobody"), "JOB_NOT_FOUND"),
        (lambda h: h.cancel("nobody"), "JOB_NOT_FOUND"),
        (lambda h: h.wait("nobody"), "JOB_NOT_FOUND"),
        (lambda h: h.restored("nobody"), "JOB_NOT_FOUND"),
        (
            lambda h: h.contexts.GetContext(
                context_pb2.GetContextRequest(context_id="x"), timeout=20
            ),
            "CONTEXT_NOT_FOUND",
        ),
        (
            lambda h: h.disks.GetDisk(context_pb2.GetDiskRequest(job_id="x"), timeout=20),
            "JOB_NOT_FOUND",
        ),
        (
            lambda h: h.agents.GetAgent(inventory_pb2.GetAgentRequest(site="x"), timeout=20),
            "AGENT_NOT_FOUND",
        ),
        (
            lambda h: h.inventory.ListVirtualMachines(
                inventory_pb2.ListVirtualMachinesRequest(site="x"), timeout=20
            ),
            "SITE_NOT_FOUND",
        ),
        (
            lambda h: h.backups.ListBackups(pb.ListBackupsRequest(context_id="x"), timeout=20),
            "CONTEXT_NOT_FOUND",
        ),
        (
            lambda h: h.backups.ListBackups(pb.ListBackupsRequest(vm_name="x"), timeout=20),
            "VM_NOT_FOUND",
        ),
    ],
    ids=[
        *("get", "cancel", "watch", "restore", "context", "disk", "agent"),
        *("vms of a site", "jobs of a context", "jobs of a vm"),
    ],
)
def test_unknown_things_are_not_found(
    hub: RunningHub, ask: Callable[[RunningHub], object], reason: str
) -> None:
    assert refusal(lambda: ask(hub))[:2] == (Code.NOT_FOUND, reason)


def test_filters_by_what_is_known_may_find_nothing(hub: RunningHub, agent: FakeAgent) -> None:
    listed = hub.inventory.ListVirtualMachines(
        inventory_pb2.ListVirtualMachinesRequest(site="lab", name="x"), timeout=20
    )
    assert list(listed.virtual_machines) == []
    request = pb.ListBackupsRequest(vm_name="pgtest1")
    assert list(hub.backups.ListBackups(request, timeout=20).backups) == []
    job = hub.start()
    agent.expect("start_job")
    # Gone from the inventory, but not from the catalog.
    agent.vms = []
    agent.report()
    assert [one.job_id for one in hub.backups.ListBackups(request, timeout=20).backups] == [
        job.job_id
    ]


def test_unusable_page_is_refused(hub: RunningHub) -> None:
    for request in (pb.ListBackupsRequest(page_size=-1), pb.ListBackupsRequest(page_token="?")):
        assert (
            refusal(lambda r=request: hub.backups.ListBackups(r, timeout=20))[0]
            == Code.INVALID_ARGUMENT
        )


def test_running_job_is_no_restore_point(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    request = restore_pb2.RestoreDiskRequest(job_id=job.job_id)
    assert refusal(lambda: next(hub.restores.RestoreDisk(request, timeout=20)))[:2] == (
        Code.FAILED_PRECONDITION,
        "NOT_A_RESTORE_POINT",
    )


def test_watches_end_when_their_clients_leave(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    for _ in range(2 * stream_slots.LIMITS["watch"]):
        call = hub.backups.WatchBackup(pb.WatchBackupRequest(job_id=job.job_id), timeout=20)
        assert next(call).backup.job_id == job.job_id
        call.cancel()
    # Every slot is free again once the hub noticed; the last few may take a moment.
    calls = []
    while len(calls) < stream_slots.LIMITS["watch"]:
        call = hub.backups.WatchBackup(pb.WatchBackupRequest(job_id=job.job_id), timeout=60)
        try:
            next(call)
        except grpc.RpcError as error:
            assert error.code() == Code.RESOURCE_EXHAUSTED
        else:
            calls.append(call)
    # All slots taken: one more is refused, short calls go on.
    one_more = hub.backups.WatchBackup(pb.WatchBackupRequest(job_id=job.job_id), timeout=20)
    assert refusal(lambda: next(one_more))[:2] == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert hub.get(job.job_id).status == pb.BACKUP_STATUS_PENDING
    # And an ending job reaches every watcher.
    agent.send(job_failed={"job_id": job.job_id})
    assert {[r.backup.status for r in call][-1] for call in calls} == {pb.BACKUP_STATUS_FAILED}


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:8443",
        "192.0.2.7:8443",
        "[::]:8443",
        "example.org:8443",
        "127.0.0.1",
        ":1",
        "127.0.0.1:x",
        "127.0.0.1:70000",
    ],
)
def test_hub_listens_on_loopback_only(address: str) -> None:
    with pytest.raises(ConfigurationError):
        loopback_address(address, key="listen")


@pytest.mark.parametrize(
    ("address", "understood"),
    [("localhost:1", "127.0.0.1:1"), ("127.0.0.9:0", "127.0.0.9:0"), ("[::1]:2", "[::1]:2")],
)
def test_loopback_addresses_are_understood(address: str, understood: str) -> None:
    assert str(loopback_address(address, key="listen")) == understood
