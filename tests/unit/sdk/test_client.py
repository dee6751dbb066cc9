"""The client against a hub on a real socket: requests, pages, errors, deadlines."""

import re
from collections.abc import Iterator

import grpc
import pytest

import sendense
from sendense import (
    AlreadyExists,
    BackupStatus,
    BackupType,
    Client,
    ConsistencyLevel,
    DataLoss,
    FailedPrecondition,
    HubError,
    HubUnavailable,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SendenseError,
    Unavailable,
)
from sendense.v1 import backup_pb2, context_pb2, inventory_pb2, repository_pb2, restore_pb2
from shared.errors import InvalidArgument as RefusedField
from tests.unit.sdk.client_hub import ClientHub, refused, stored

Status = grpc.StatusCode


@pytest.fixture
def hub() -> Iterator[ClientHub]:
    with ClientHub() as hub:
        yield hub


@pytest.fixture
def client(hub: ClientHub) -> Iterator[Client]:
    with Client(hub.address, timeout_s=10) as client:
        yield client


def public_rpcs() -> list[str]:
    files = (backup_pb2, context_pb2, inventory_pb2, repository_pb2, restore_pb2)
    return sorted(
        method.name
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    )


CALLS = {
    "CancelBackup": lambda c, path: c.cancel_backup("job-1"),
    "CreateRepository": lambda c, path: c.create_repository("second", "/backups/second"),
    "GetAgent": lambda c, path: c.get_agent("site-1"),
    "GetBackup": lambda c, path: c.get_backup("job-1"),
    "GetContext": lambda c, path: c.get_context("ctx-1"),
    "GetDisk": lambda c, path: c.get_disk("job-1", 0),
    "GetRepository": lambda c, path: c.get_repository("default"),
    "ListAgents": lambda c, path: list(c.list_agents()),
    "ListBackups": lambda c, path: list(c.list_backups()),
    "ListContexts": lambda c, path: list(c.list_contexts()),
    "ListDisks": lambda c, path: list(c.list_disks(job_id="job-1")),
    "ListRepositories": lambda c, path: list(c.list_repositories()),
    "ListVirtualMachines": lambda c, path: list(c.list_virtual_machines()),
    "RestoreDisk": lambda c, path: c.restore_disk("job-1", 0, path),
    "StartBackup": lambda c, path: c.start_backup("pgtest1"),
    "WatchBackup": lambda c, path: list(c.watch("job-1")),
}


@pytest.mark.parametrize("rpc", public_rpcs())
def test_every_public_rpc_has_a_client_method(hub, client, tmp_path, rpc):
    done = backup_pb2.Backup(job_id="job-1", status=3)
    hub.state.backups = [done]
    hub.state.watches = [[done]]
    hub.state.contexts = [context_pb2.BackupContext(context_id="ctx-1")]
    hub.state.disks = [backup_pb2.BackupDisk(job_id="job-1", disk_index=0)]
    hub.state.repositories = [repository_pb2.Repository(name="default")]
    hub.state.agents = [inventory_pb2.Agent(site="site-1")]
    hub.state.virtual_machines = [inventory_pb2.VirtualMachine(name="pgtest1")]
    hub.state.restore = lambda: stored(b"data" * 20000)
    answer = CALLS[rpc](client, tmp_path / "disk.raw")
    assert answer
    assert [item.rpc for item in hub.state.seen] == [rpc]


def test_start_backup_sends_what_it_was_given(hub, client):
    job = client.start_backup(
        "pgtest1",
        site="site-1",
        repository="second",
        backup_type=BackupType.FULL,
        quiesce=True,
        request_id="r-1",
    )
    assert job.job_id == "backup-pgtest1-1"
    assert hub.state.requests("StartBackup") == [
        backup_pb2.StartBackupRequest(
            vm="pgtest1",
            site="site-1",
            repository="second",
            backup_type=backup_pb2.BACKUP_TYPE_FULL,
            request_id="r-1",
            quiesce=True,
        )
    ]


def test_start_backup_repeats_the_same_request_when_the_hub_is_briefly_away(hub, client):
    hub.state.failures["StartBackup"] = [Status.UNAVAILABLE, Status.UNAVAILABLE]
    client.start_backup("pgtest1")
    ids = [request.request_id for request in hub.state.requests("StartBackup")]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert ids[0]


def test_start_backup_makes_a_new_request_id_for_every_call(hub, client):
    client.start_backup("pgtest1")
    client.start_backup("pgtest1")
    first, second = hub.state.requests("StartBackup")
    assert first.request_id != second.request_id


def test_create_repository_is_not_repeated_when_the_hub_goes_away(hub, client):
    hub.state.failures["CreateRepository"] = [Status.UNAVAILABLE]
    with pytest.raises(HubUnavailable):
        client.create_repository("second", "/backups/second")
    assert len(hub.state.requests("CreateRepository")) == 1


def test_lists_fetch_every_page_in_order(hub, client):
    hub.state.backups = [backup_pb2.Backup(job_id=f"job-{n}") for n in range(450)]
    hub.state.contexts = [context_pb2.BackupContext(context_id=f"c-{n}") for n in range(201)]
    hub.state.disks = [backup_pb2.BackupDisk(disk_id=n) for n in range(200)]
    assert list(client.list_backups()) == hub.state.backups
    assert list(client.list_contexts()) == hub.state.contexts
    assert list(client.list_disks(context_id="c-1")) == hub.state.disks
    assert [len(hub.state.requests(f"List{n}")) for n in ("Backups", "Contexts", "Disks")] == [
        3,
        2,
        1,
    ]


def test_lists_fetch_a_page_only_when_it_is_needed(hub, client):
    hub.state.backups = [backup_pb2.Backup(job_id=f"job-{n}") for n in range(450)]
    assert next(client.list_backups(status=BackupStatus.FAILED)).job_id == "job-0"
    (request,) = hub.state.requests("ListBackups")
    assert request.status == backup_pb2.BACKUP_STATUS_FAILED


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (Status.NOT_FOUND, "VM_NOT_FOUND", NotFound),
        (Status.ALREADY_EXISTS, "BACKUP_RUNNING", AlreadyExists),
        (Status.FAILED_PRECONDITION, "VM_AMBIGUOUS", FailedPrecondition),
        (Status.ABORTED, "JOB_ENDED", FailedPrecondition),
        (Status.UNAVAILABLE, "AGENT_AWAY", Unavailable),
        (Status.DATA_LOSS, "LAYER_DAMAGED", DataLoss),
        (Status.RESOURCE_EXHAUSTED, "REPOSITORY_FULL", ResourceExhausted),
        (Status.INVALID_ARGUMENT, "ODD", InvalidArgument),
        (Status.INTERNAL, "INTERNAL", HubError),
        (Status.PERMISSION_DENIED, "NOT_ALLOWED", HubError),
    ],
)
def test_hub_errors_become_typed_errors_with_their_facts(hub, client, status, reason, kind):
    hub.state.failures["GetBackup"] = [refused("so it is", status=status, code=reason)] * 4
    with pytest.raises(SendenseError) as caught:
        client.get_backup("job-1")
    error = caught.value
    assert type(error) is kind
    assert (error.reason, error.message, str(error)) == (reason, "so it is", "so it is")
    assert error.metadata["sentence"] == "so it is"
    assert isinstance(error.__cause__, grpc.RpcError)


def test_field_violations_are_told_when_a_value_is_refused(hub, client):
    hub.state.failures["StartBackup"] = [RefusedField("vm", "must not be empty")]
    with pytest.raises(InvalidArgument) as caught:
        client.start_backup("")
    assert caught.value.violations == {"vm": "must not be empty"}


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (Status.NOT_FOUND, NotFound, "NOT_FOUND"),
        (Status.UNKNOWN, HubError, "UNKNOWN"),
        (Status.UNIMPLEMENTED, HubError, "UNIMPLEMENTED"),
        (Status.UNAVAILABLE, HubUnavailable, "HUB_UNAVAILABLE"),
    ],
)
def test_statuses_without_details_are_typed_too(hub, client, status, kind, reason):
    hub.state.failures["GetAgent"] = [status] * 4
    with pytest.raises(SendenseError) as caught:
        client.get_agent("site-1")
    assert type(caught.value) is kind
    assert caught.value.reason == reason


def test_hub_unavailable_when_nobody_listens():
    with ClientHub() as hub:
        address = hub.address
    with Client(address) as client, pytest.raises(HubUnavailable, match=re.escape(address)):
        client.list_agents()


def test_hub_timeout_when_the_hub_does_not_answer(hub):
    hub.state.hold.add("ListAgents")
    with Client(hub.address, timeout_s=0.2) as client, pytest.raises(HubUnavailable) as caught:
        client.list_agents()
    assert caught.value.reason == "HUB_TIMEOUT"
    assert hub.state.held.is_set()


def test_proxy_of_the_environment_is_not_used(hub, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Client(hub.address) as client:
        assert client.list_agents() == []


@pytest.mark.parametrize(
    "address", ["", "hub", "hub:", "hub:0", "hub:65536", "http://hub:1", "::1:5"]
)
def test_address_is_refused_when_it_is_not_host_and_port(address):
    with pytest.raises(InvalidArgument, match="host:port"):
        Client(address)


@pytest.mark.parametrize("address", ["localhost:{}", "127.0.0.1:{}"])
def test_address_may_be_a_name_or_a_number(hub, address):
    with Client(address.format(hub.port)) as client:
        assert client.list_agents() == []


def test_closed_client_says_so(hub):
    client = Client(hub.address)
    client.close()
    client.close()
    with pytest.raises(HubUnavailable) as caught:
        client.list_agents()
    assert caught.value.reason == "CLIENT_CLOSED"


def test_restore_uses_a_connection_of_its_own(hub, client, tmp_path):
    hub.state.restore = lambda: stored(b"data" * 20000)
    client.list_agents()
    client.restore_disk("job-1", 0, tmp_path / "disk.raw")
    first, second = hub.state.seen
    assert first.peer != second.peer


@pytest.mark.parametrize("kind", [BackupType, BackupStatus, ConsistencyLevel])
def test_enumerations_are_those_of_the_protos(kind):
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper()
    values = backup_pb2.DESCRIPTOR.enum_types_by_name[kind.__name__].values
    assert {f"{prefix}_{m.name}": m.value for m in kind} == {v.name: v.number for v in values}


def test_states_of_a_newer_hub_are_no_ends():
    assert BackupStatus(99) is BackupStatus.UNSPECIFIED
    assert not BackupStatus(99).ended
    with pytest.raises(ValueError, match="odd"):
        BackupStatus("odd")


def test_public_names_exist_and_are_sorted():
    assert all(hasattr(sendense, name) for name in sendense.__all__)
    assert sendense.__all__ == sorted(sendense.__all__)
