"""StartBackup: bad input gets a clear error and starts nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from hub.repository import Repository
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import inventory_pb2, repository_pb2
from tests.unit.hub.fake_agent import FakeAgent, FakeVm
from tests.unit.hub.running_hub import RunningHub, refusal

MakeAgent = Callable[..., FakeAgent]
Code = grpc.StatusCode


def jobs(hub: RunningHub) -> list[pb.Backup]:
    return list(hub.backups.ListBackups(pb.ListBackupsRequest(), timeout=20).backups)


@pytest.mark.parametrize("vm", ["pgtest1", "vm-1", "5020-pgtest1", "5020-PGTEST1"])
def test_vm_is_found_by_name_moref_and_uuid(hub: RunningHub, agent: FakeAgent, vm: str) -> None:
    assert hub.start(vm).vm_name == "pgtest1"
    assert agent.expect("start_job").vmware_vm_id == "vm-1"


def test_unknown_vm_is_not_found(hub: RunningHub, agent: FakeAgent) -> None:
    status, reason, facts = refusal(lambda: hub.start("nobody"))
    assert (status, reason) == (Code.NOT_FOUND, "VM_NOT_FOUND")
    assert facts["vm"] == "nobody"
    assert refusal(lambda: hub.start("nobody", site="lab"))[:2] == (Code.NOT_FOUND, "VM_NOT_FOUND")
    status, reason, facts = refusal(lambda: hub.start("pgtest1", site="dr"))
    assert (status, reason, facts) == (Code.NOT_FOUND, "SITE_NOT_FOUND", {"site": "dr"})
    assert jobs(hub) == []


def test_vm_of_two_sites_needs_the_site(hub: RunningHub, agents: MakeAgent) -> None:
    lab, dr = agents("lab"), agents("dr", FakeVm(instance_uuid="u2"))
    status, reason, facts = refusal(hub.start)
    assert (status, reason) == (Code.FAILED_PRECONDITION, "VM_AMBIGUOUS")
    assert facts["sites"] == "dr,lab"
    assert jobs(hub) == []
    assert hub.start(site="dr").site == "dr"
    assert dr.expect("start_job").instance_uuid == "u2"
    assert hub.start(site="lab").site == "lab"
    assert lab.expect("start_job").instance_uuid == "5020-pgtest1"


def test_vms_that_share_a_uuid_are_refused(hub: RunningHub, agents: MakeAgent) -> None:
    agents("lab", FakeVm("a"), FakeVm("a copied", moref="vm-2"))
    assert refusal(lambda: hub.start("a"))[:2] == (Code.FAILED_PRECONDITION, "VM_UNIDENTIFIED")


def test_vm_of_an_agent_that_is_away_is_unavailable(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    agent.close()
    hub.wait_until_away("lab")
    # Without an agent that holds it, it ends at once.
    assert hub.cancel(job.job_id).status == pb.BACKUP_STATUS_CANCELLED
    status, reason, facts = refusal(hub.start)
    assert (status, reason) == (Code.UNAVAILABLE, "AGENT_AWAY")
    assert facts["site"] == "lab"
    hub.agents.RemoveAgent(inventory_pb2.RemoveAgentRequest(site="lab"), timeout=20)
    with pytest.raises(grpc.RpcError, match="it was removed") as refused:
        hub.start()
    assert refused.value.code() is Code.UNAVAILABLE


def test_unknown_repository_is_not_found(hub: RunningHub, agent: FakeAgent) -> None:
    assert refusal(lambda: hub.start(repository="nowhere"))[:2] == (
        Code.NOT_FOUND,
        "REPOSITORY_NOT_FOUND",
    )
    assert jobs(hub) == []


def test_missing_repository_folder_is_refused_before_a_job_exists(
    hub: RunningHub, agent: FakeAgent
) -> None:
    shutil.rmtree(hub.repository_folder())
    status, reason, facts = refusal(hub.start)
    assert (status, reason) == (Code.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE")
    assert facts["path"]
    assert jobs(hub) == []
    (listed,) = hub.repositories.ListRepositories(
        repository_pb2.ListRepositoriesRequest(), timeout=20
    ).repositories
    assert listed.problem


def test_second_job_of_a_context_names_the_running_one(hub: RunningHub, agent: FakeAgent) -> None:
    first = hub.start()
    status, reason, facts = refusal(hub.start)
    assert (status, reason) == (Code.ALREADY_EXISTS, "BACKUP_RUNNING")
    assert facts["job_id"] == first.job_id
    assert len(jobs(hub)) == 1


def test_repeated_request_returns_the_same_job(
    hub: RunningHub, agent: FakeAgent, agents: MakeAgent
) -> None:
    first = hub.start(request_id="nightly-1")
    agent.expect("start_job")
    assert hub.start(request_id="nightly-1").job_id == first.job_id
    agent.close()
    hub.wait_until_away("lab")
    # Also when its agent is away, and then when it has ended.
    waits = hub.start(request_id="nightly-1")
    assert waits.status == pb.BACKUP_STATUS_PENDING
    assert waits.waiting_for.startswith("the agent of 'lab', away since ")
    hub.cancel(first.job_id)
    assert hub.start(request_id="nightly-1").status == pb.BACKUP_STATUS_CANCELLED
    assert len(jobs(hub)) == 1


def test_request_id_of_another_vm_is_refused(hub: RunningHub, agents: MakeAgent) -> None:
    agents("lab", FakeVm("a"), FakeVm("b", moref="vm-2", instance_uuid="u2"))
    hub.start("a", request_id="r")
    assert refusal(lambda: hub.start("b", request_id="r"))[0] == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "request_fields", [{"vm": ""}, {"request_id": "x" * 129}, {"backup_type": 7}], ids=str
)
def test_unusable_field_is_named(
    hub: RunningHub, agent: FakeAgent, request_fields: dict[str, object]
) -> None:
    fields = {"vm": "pgtest1"} | request_fields
    status, reason, facts = refusal(lambda: hub.start(**fields))  # type: ignore[arg-type]
    assert (status, reason) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert facts["field"] == next(iter(request_fields))


def test_names_that_are_too_long_are_refused(hub: RunningHub) -> None:
    refused = (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert refusal(lambda: hub.start("x" * 20_000))[:2] == refused
    assert refusal(lambda: hub.get("ä" * 20_000))[:2] == refused
    assert refusal(lambda: hub.start("x" * 256))[:2] == (Code.NOT_FOUND, "VM_NOT_FOUND")


def test_interrupted_creation_of_a_repository_is_taken_up_again(
    hub: RunningHub, tmp_path: Path
) -> None:
    Repository.create(tmp_path / "half", repository_id="repo-half-1", name="half")
    request = repository_pb2.CreateRepositoryRequest(name="half", path=str(tmp_path / "half"))
    made = hub.repositories.CreateRepository(request, timeout=20).repository
    assert (made.repository_id, made.problem) == ("repo-half-1", "")
    # A copy of a repository that has its row is nobody's second one.
    shutil.copytree(tmp_path / "half", tmp_path / "copy")
    request = repository_pb2.CreateRepositoryRequest(name="copy", path=str(tmp_path / "copy"))
    answer = refusal(lambda: hub.repositories.CreateRepository(request, timeout=20))
    assert answer[:2] == (Code.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE")


def test_repositories_are_created_listed_and_not_shared(hub: RunningHub, tmp_path: Path) -> None:
    def create(name: str, path: str, **more: bool) -> repository_pb2.Repository:
        request = repository_pb2.CreateRepositoryRequest(name=name, path=path, **more)
        return hub.repositories.CreateRepository(request, timeout=20).repository

    made = create("second", str(tmp_path / "second"), make_default=True)
    assert made.is_default
    rows = hub.repositories.ListRepositories(
        repository_pb2.ListRepositoriesRequest(), timeout=20
    ).repositories
    assert [(row.name, row.is_default, row.problem) for row in rows] == [
        ("default", False, ""),
        ("second", True, ""),
    ]
    assert all(row.free_bytes > 0 for row in rows)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    (tmp_path / "full" / "photos").mkdir(parents=True)
    inside = str(tmp_path / "second" / "inside")
    for name, path, status, reason in [
        ("third", inside, Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        ("third", "/", Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        ("third", str(tmp_path / "loop/x"), Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        ("third", str(tmp_path / ("n" * 300)), Code.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE"),
        ("third", str(tmp_path / "file/x"), Code.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE"),
        ("..", str(tmp_path / "y"), Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        ("second", str(tmp_path / "x"), Code.ALREADY_EXISTS, "REPOSITORY_EXISTS"),
        ("third", str(tmp_path / "second"), Code.ALREADY_EXISTS, "REPOSITORY_EXISTS"),
        ("third", str(tmp_path), Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        ("third", str(tmp_path / "full"), Code.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE"),
        ("third", str(tmp_path / "no" / "parent"), Code.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE"),
        ("third", "relative", Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        ("a/b", str(tmp_path / "y"), Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        ("", str(tmp_path / "y"), Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    ]:
        assert refusal(lambda n=name, p=path: create(n, p))[:2] == (status, reason), name
    assert (
        hub.repositories.GetRepository(
            repository_pb2.GetRepositoryRequest(repository=made.repository_id), timeout=20
        ).repository.name
        == "second"
    )
