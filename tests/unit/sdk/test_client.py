"""The client against a hub on a real socket: requests, pages, errors, deadlines."""

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

import sendense
from sendense import (
    AlreadyExists,
    BackupOrder,
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
    Protection,
    ResourceExhausted,
    SendenseError,
    Unavailable,
)
from sendense.v1 import backup_pb2, context_pb2, inventory_pb2, repository_pb2, statistics_pb2
from shared.errors import InvalidArgument as RefusedField
from shared.errors import InvalidRequest
from tests.unit.sdk.client_hub import ClientHub, refused, stored
from tests.unit.sdk.hub_services import public_rpcs

Status = grpc.StatusCode


@pytest.fixture
def hub() -> Iterator[ClientHub]:
    with ClientHub() as hub:
        yield hub


@pytest.fixture
def client(hub: ClientHub) -> Iterator[Client]:
    with Client(hub.address, timeout_s=10) as client:
        yield client


CALLS = {
    "CancelBackup": lambda c, path: c.cancel_backup("job-1"),
    "DeleteBackup": lambda c, path: c.delete_backup("job-1"),
    "DeleteContext": lambda c, path: c.delete_context("ctx-1"),
    "DeleteRepository": lambda c, path: c.delete_repository("default"),
    "DisableRepository": lambda c, path: c.disable_repository("default"),
    "DrainAgent": lambda c, path: c.drain_agent("site-1"),
    "EnableRepository": lambda c, path: c.enable_repository("default"),
    "GetChain": lambda c, path: c.get_chain("job-1", 0),
    "GetChangeId": lambda c, path: c.get_change_id("pgtest1", 0),
    "GetStatistics": lambda c, path: c.get_statistics(),
    "RecoveryReport": lambda c, path: c.recovery_report(),
    "RemoveAgent": lambda c, path: c.remove_agent("site-1"),
    "RenameRepository": lambda c, path: c.rename_repository("default", "first"),
    "ResumeAgent": lambda c, path: c.resume_agent("site-1"),
    "RetryBackup": lambda c, path: c.retry_backup("job-1"),
    "SetDefaultRepository": lambda c, path: c.set_default_repository("default"),
    "TestRepository": lambda c, path: c.test_repository("default"),
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
    hub.state.chain.bytes_stored = 5
    hub.state.change_id.job_id = "job-1"
    hub.state.statistics.now.contexts = 1
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
    hub.state.repositories = [repository_pb2.Repository(name=f"r-{n}") for n in range(401)]
    hub.state.agents = [inventory_pb2.Agent(site=f"s-{n}") for n in range(600)]
    hub.state.virtual_machines = [inventory_pb2.VirtualMachine(name=f"v{n}") for n in range(201)]
    assert list(client.list_backups()) == hub.state.backups
    assert list(client.list_contexts()) == hub.state.contexts
    assert list(client.list_disks(context_id="c-1")) == hub.state.disks
    assert client.list_repositories() == hub.state.repositories
    assert client.list_agents() == hub.state.agents
    assert client.list_virtual_machines() == hub.state.virtual_machines
    assert Counter(item.rpc for item in hub.state.seen) == {
        "ListBackups": 3,
        "ListContexts": 2,
        "ListDisks": 1,
        "ListRepositories": 3,
        "ListAgents": 3,
        "ListVirtualMachines": 2,
    }


def test_list_that_repeats_a_page_ends_with_an_error(hub, client):
    hub.state.backups = [backup_pb2.Backup(job_id=f"job-{n}") for n in range(450)]
    hub.state.page = lambda items, request: (items[:1], "again")
    with pytest.raises(HubError) as caught:
        list(client.list_backups())
    assert caught.value.reason == "PAGES_WITHOUT_END"
    assert len(hub.state.seen) == 2


def test_list_backups_sends_every_filter(hub, client):
    begin = datetime(2025, 10, 8, 18, 5, 59, 123456, tzinfo=UTC)
    end = datetime(2025, 10, 9, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    found = client.list_backups(
        vm_name="pgtest1",
        context_id="ctx-1",
        repository="second",
        status=BackupStatus.COMPLETED,
        backup_type=BackupType.FULL,
        created_after=begin,
        created_before=end,
        order=BackupOrder.OLDEST_FIRST,
    )
    assert list(found) == []
    after, before = Timestamp(), Timestamp()
    after.FromJsonString("2025-10-08T18:05:59.123456Z")
    before.FromJsonString("2025-10-08T23:00:00Z")
    assert hub.state.requests("ListBackups") == [
        backup_pb2.ListBackupsRequest(
            vm_name="pgtest1",
            context_id="ctx-1",
            repository="second",
            status=backup_pb2.BACKUP_STATUS_COMPLETED,
            backup_type=backup_pb2.BACKUP_TYPE_FULL,
            created_after=after,
            created_before=before,
            order=backup_pb2.BACKUP_ORDER_OLDEST_FIRST,
            page_size=200,
        )
    ]


@pytest.mark.parametrize(
    "value",
    [
        datetime(2025, 10, 8, tzinfo=UTC).replace(tzinfo=None),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
    ids=["without-zone", "before-year-1"],
)
@pytest.mark.parametrize("name", ["created_after", "created_before"])
def test_times_that_cannot_be_sent_are_refused_at_once(hub, client, name, value):
    with pytest.raises(InvalidArgument) as caught:
        client.list_backups(**{name: value})
    ((field, problem),) = caught.value.violations
    assert field == name
    assert str(caught.value) == f"{name}: {problem}"
    assert hub.state.seen == []


def test_other_filters_are_sent_as_they_were_given(hub, client):
    client.list_virtual_machines(site="s", name="n", protection=Protection.NOT_PROTECTED)
    list(client.list_contexts(vm_name="v", repository="r", site="s"))
    client.get_change_id("v", 3, site="s", repository="r")
    client.get_statistics(days=7, repository="r")
    assert [item.request for item in hub.state.seen] == [
        inventory_pb2.ListVirtualMachinesRequest(
            site="s", name="n", protection=inventory_pb2.PROTECTION_NOT_PROTECTED, page_size=200
        ),
        context_pb2.ListContextsRequest(vm_name="v", repository="r", site="s", page_size=200),
        context_pb2.GetChangeIdRequest(vm="v", disk_index=3, site="s", repository="r"),
        statistics_pb2.GetStatisticsRequest(days=7, repository="r"),
    ]


def test_retry_repeats_the_same_request_when_the_hub_is_briefly_away(hub, client):
    hub.state.backups = [backup_pb2.Backup(job_id="job-1", status=4)]
    hub.state.failures["RetryBackup"] = [Status.UNAVAILABLE]
    assert client.retry_backup("job-1").retry_of_job_id == "job-1"
    first, second = hub.state.requests("RetryBackup")
    assert first.request_id
    assert first == second


def test_deletion_tells_what_went_and_what_refused_it(hub, client):
    hub.state.backups = [backup_pb2.Backup(job_id=f"job-{n}", bytes_stored=n) for n in (3, 2, 1)]
    hub.state.dependants = "job-2,job-3"
    with pytest.raises(FailedPrecondition) as caught:
        client.delete_backup("job-1")
    assert caught.value.metadata["dependants"] == "job-2,job-3"
    deleted = client.delete_backup("job-1", cascade=True)
    assert list(deleted.job_ids) == ["job-3", "job-2", "job-1"]
    assert deleted.bytes_stored == 6


@pytest.mark.parametrize(
    ("rpc", "call"),
    [
        ("DeleteBackup", lambda client: client.delete_backup("job-1")),
        ("DeleteContext", lambda client: client.delete_context("ctx-1")),
        ("DeleteRepository", lambda client: client.delete_repository("default")),
        ("RemoveAgent", lambda client: client.remove_agent("site-1")),
        ("RenameRepository", lambda client: client.rename_repository("default", "first")),
    ],
)
def test_what_cannot_be_repeated_is_asked_once_when_the_hub_goes_away(hub, client, rpc, call):
    hub.state.failures[rpc] = [Status.UNAVAILABLE]
    with pytest.raises(HubUnavailable):
        call(client)
    assert len(hub.state.requests(rpc)) == 1


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
    assert caught.value.violations == [("vm", "must not be empty")]


def test_every_field_that_is_refused_is_told(hub, client):
    wrong = [RefusedField("vm", "is needed"), RefusedField("site", "is too long")]
    hub.state.failures["StartBackup"] = [InvalidRequest(wrong)]
    with pytest.raises(InvalidArgument) as caught:
        client.start_backup("")
    assert caught.value.violations == [("vm", "is needed"), ("site", "is too long")]


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
    "address", ["", "hub:", "a hub", "hub:0", "hub:65536", "http://hub:1", "::1:5"]
)
def test_address_is_refused_when_it_is_not_host_and_port(address):
    with pytest.raises(InvalidArgument, match="host:port"):
        Client(address)


@pytest.mark.parametrize(
    ("address", "asked"),
    [("hub", "hub:8443"), ("10.0.0.5", "10.0.0.5:8443"), ("[::1]", "[::1]:8443"), ("h:1", "h:1")],
)
def test_address_without_a_port_gets_the_usual_one(address, asked):
    with Client(address) as client:
        assert client.address == asked


@pytest.mark.parametrize(
    ("call", "field", "problem"),
    [
        (lambda c: c.get_disk("job-1", 1 << 31), "disk_index", "2147483648 is out of range"),
        (lambda c: c.get_chain("job-1", "0"), "disk_index", "'0' is of the wrong type"),
        (lambda c: c.restore_disk("job-1", -1 << 40, "x"), "disk_index", "is out of range"),
        (lambda c: c.list_disks(job_id="\udcff"), "job_id", "is no text"),
        (lambda c: c.get_backup(7), "job_id", "7 is of the wrong type"),
        (lambda c: c.wait(7), "job_id", "7 is of the wrong type"),
        (lambda c: c.get_statistics(days=1.5), "days", "1.5 is of the wrong type"),
        (lambda c: c.list_backups(status="failed"), "status", "'failed' is no BackupStatus"),
        (lambda c: c.list_backups(status=99), "status", "99 is no BackupStatus"),
        (lambda c: c.list_backups(created_after="now"), "created_after", "must have a time zone"),
    ],
)
def test_values_that_a_request_cannot_have_are_refused_before_the_hub_is_asked(
    hub, client, monkeypatch, tmp_path, call, field, problem
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument) as caught:
        call(client)
    ((named, told),) = caught.value.violations
    assert named == field
    assert problem in told
    assert str(caught.value) == f"{field}: {told}"
    assert hub.state.seen == []


def test_all_values_that_a_request_cannot_have_are_named(client):
    with pytest.raises(InvalidArgument) as caught:
        client.get_change_id(5, 1 << 31)
    assert [field for field, _ in caught.value.violations] == ["vm", "disk_index"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [(b"", "it takes connections but does not answer; "), (b"SSH-2.0-x\r\n", "is no hub")],
)
def test_what_listens_but_is_no_working_hub_is_told_without_the_words_of_grpc(answer, told):
    """A hub that hangs lets the kernel take connections; another program says something else."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if answer:
            threading.Thread(target=_answer_each, args=(listening, answer), daemon=True).start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with Client(address) as client, pytest.raises(HubUnavailable) as caught:
            client.delete_context("ctx-1")  # the one kind of request that is not repeated
        listening.shutdown(socket.SHUT_RDWR)
    assert told in str(caught.value)
    assert "SETTINGS" not in str(caught.value)
    assert "ipv4" not in str(caught.value)


def _answer_each(listening: socket.socket, answer: bytes) -> None:
    """Send that to whoever connects, until the socket is shut down."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            connection.sendall(answer)


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


@pytest.mark.parametrize(
    "kind", [BackupType, BackupStatus, BackupOrder, ConsistencyLevel, Protection]
)
def test_enumerations_are_those_of_the_protos(kind):
    file = inventory_pb2 if kind is Protection else backup_pb2
    values = file.DESCRIPTOR.enum_types_by_name[kind.__name__].values
    assert {m.proto_name: m.value for m in kind} == {v.name: v.number for v in values}


def test_states_of_a_newer_hub_are_no_ends():
    assert BackupStatus(99) is BackupStatus.UNSPECIFIED
    assert not BackupStatus(99).ended
    with pytest.raises(ValueError, match="odd"):
        BackupStatus("odd")


def test_public_names_exist_and_are_sorted():
    assert all(hasattr(sendense, name) for name in sendense.__all__)
    assert sendense.__all__ == sorted(sendense.__all__)
