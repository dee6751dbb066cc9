"""RetryBackup, and what keeps a backup from starting."""

from collections.abc import Callable

import grpc
import pytest

from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import inventory_pb2, repository_pb2
from tests.unit.hub.fake_agent import FakeAgent, FakeVm
from tests.unit.hub.jobs.backups import backed_up, delete, failed, job_ids
from tests.unit.hub.running_hub import RunningHub, refusal

MakeAgent = Callable[..., FakeAgent]
Code = grpc.StatusCode


def retry(hub: RunningHub, job_id: str, request_id: str = "") -> pb.Backup:
    request = pb.RetryBackupRequest(job_id=job_id, request_id=request_id)
    return hub.backups.RetryBackup(request, timeout=20).backup


def give_up(hub: RunningHub, agent: FakeAgent, job: pb.Backup) -> pb.Backup:
    agent.expect("start_job")
    agent.send(job_failed=session_pb.JobFailed(job_id=job.job_id))
    return hub.wait(job.job_id)


@pytest.mark.parametrize("kind", [pb.BACKUP_TYPE_UNSPECIFIED, pb.BACKUP_TYPE_FULL])
def test_retry_asks_for_the_same_again_and_tells_of_the_first(
    hub: RunningHub, agent: FakeAgent, kind: pb.BackupType
) -> None:
    first = give_up(hub, agent, hub.start(backup_type=kind, quiesce=True))
    second = retry(hub, first.job_id)
    assert second.job_id != first.job_id
    assert second.status == pb.BACKUP_STATUS_PENDING
    assert (second.retry_of_job_id, first.retry_of_job_id) == (first.job_id, "")
    assert (second.context_id, second.requested_type) == (first.context_id, kind)
    started = agent.expect("start_job")
    assert (started.job_id, started.quiesce) == (second.job_id, True)
    assert hub.get(second.job_id).retry_of_job_id == first.job_id
    (listed, _) = hub.backups.ListBackups(pb.ListBackupsRequest(), timeout=20).backups
    assert listed.retry_of_job_id == first.job_id


def test_cancelled_job_is_retried_and_its_retry_too(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    agent.expect("start_job")
    hub.cancel(job.job_id)
    agent.expect("cancel_job")
    agent.send(job_failed=session_pb.JobFailed(job_id=job.job_id, cancelled=True))
    assert hub.wait(job.job_id).status == pb.BACKUP_STATUS_CANCELLED
    second = give_up(hub, agent, retry(hub, job.job_id))
    third = retry(hub, second.job_id)
    assert third.retry_of_job_id == second.job_id
    assert len({job.job_id, second.job_id, third.job_id}) == 3


def test_repeated_retry_returns_the_same_job(hub: RunningHub, agent: FakeAgent) -> None:
    first = failed(hub, agent)
    second = retry(hub, first.job_id, "again-1")
    agent.expect("start_job")
    assert retry(hub, first.job_id, "again-1").job_id == second.job_id
    agent.close()
    hub.wait_until_away("lab")
    hub.cancel(second.job_id)
    hub.wait(second.job_id)
    # Also when the job has ended and its agent is away.
    assert retry(hub, first.job_id, "again-1").job_id == second.job_id
    assert job_ids(hub) == [second.job_id, first.job_id]


def test_repeated_retry_returns_its_job_after_the_first_was_deleted(
    hub: RunningHub, agent: FakeAgent
) -> None:
    first = failed(hub, agent)
    second = retry(hub, first.job_id, "again-1")
    delete(hub, first.job_id)
    assert retry(hub, first.job_id, "again-1").job_id == second.job_id
    # Without the request id it is a new wish, and nothing is left to repeat.
    assert refusal(lambda: retry(hub, first.job_id))[1] == "JOB_NOT_FOUND"
    assert refusal(lambda: retry(hub, first.job_id, "again-2"))[1] == "JOB_NOT_FOUND"
    assert job_ids(hub) == [second.job_id]


def test_request_id_of_something_else_is_refused(hub: RunningHub, agent: FakeAgent) -> None:
    first = give_up(hub, agent, hub.start(request_id="start-1"))
    second = give_up(hub, agent, retry(hub, first.job_id, "again-1"))
    assert refusal(lambda: retry(hub, first.job_id, "start-1"))[0] == Code.INVALID_ARGUMENT
    assert refusal(lambda: retry(hub, second.job_id, "again-1"))[0] == Code.INVALID_ARGUMENT
    assert refusal(lambda: retry(hub, "nobody", "again-1"))[1] == "JOB_NOT_FOUND"
    assert len(job_ids(hub)) == 2


def test_renamed_and_moved_vm_is_found_by_its_context(hub: RunningHub, agents: MakeAgent) -> None:
    agent = agents("lab", FakeVm("pgtest1"))
    first = failed(hub, agent)
    agent.vms = [
        FakeVm("renamed", moref="vm-9"),
        FakeVm("pgtest1", moref="vm-1", instance_uuid="another"),
    ]
    agent.report()
    second = retry(hub, first.job_id)
    assert (second.context_id, second.vm_name) == (first.context_id, "renamed")
    started = agent.expect("start_job")
    assert (started.vmware_vm_id, started.instance_uuid) == ("vm-9", "5020-pgtest1")


def test_retry_is_of_the_vm_of_its_site(hub: RunningHub, agents: MakeAgent) -> None:
    lab = agents("lab")
    first = failed(hub, lab)
    dr = agents("dr")
    assert retry(hub, first.job_id).site == "lab"
    assert lab.expect("start_job")
    dr.report()  # it was asked for nothing


def test_jobs_that_did_not_fail_are_not_retried(hub: RunningHub, agent: FakeAgent) -> None:
    done = backed_up(hub, agent, "AB", 1)
    live = hub.start()
    for job in (done, live):
        status, reason, facts = refusal(lambda j=job: retry(hub, j.job_id))
        assert (status, reason) == (Code.FAILED_PRECONDITION, "JOB_NOT_UNSUCCESSFUL")
        assert facts["job_id"] == job.job_id
    assert refusal(lambda: retry(hub, "nobody"))[:2] == (Code.NOT_FOUND, "JOB_NOT_FOUND")


def test_retry_meets_what_a_start_meets(hub: RunningHub, agents: MakeAgent) -> None:
    agent = agents()
    first = failed(hub, agent)
    running = hub.start()
    assert refusal(lambda: retry(hub, first.job_id))[2]["job_id"] == running.job_id
    give_up(hub, agent, running)
    agent.vms = []
    agent.report()
    assert refusal(lambda: retry(hub, first.job_id))[1] == "VM_NOT_FOUND"
    agent.vms = [FakeVm(), FakeVm("copy", moref="vm-2")]
    agent.report()
    assert refusal(lambda: retry(hub, first.job_id))[1] == "VM_UNIDENTIFIED"
    agent.close()
    hub.wait_until_away("lab")
    agents("lab", FakeVm()).close()
    hub.wait_until_away("lab")
    status, reason, facts = refusal(lambda: retry(hub, first.job_id))
    assert (status, reason, facts["site"]) == (Code.UNAVAILABLE, "AGENT_AWAY", "lab")
    delete(hub, first.job_id)
    assert refusal(lambda: retry(hub, first.job_id))[1] == "JOB_NOT_FOUND"


def test_disabled_repository_starts_nothing_but_ends_what_runs(
    hub: RunningHub, agent: FakeAgent
) -> None:
    broken = failed(hub, agent)
    before = hub.start(request_id="before")
    hub.repositories.DisableRepository(
        repository_pb2.DisableRepositoryRequest(repository="default"), timeout=20
    )
    for start in (hub.start, lambda: retry(hub, broken.job_id)):
        status, reason, facts = refusal(start)
        assert (status, reason) == (Code.FAILED_PRECONDITION, "REPOSITORY_DISABLED")
        assert facts["repository"] == "default"
    assert hub.start(request_id="before").job_id == before.job_id
    give_up(hub, agent, before)
    hub.repositories.EnableRepository(
        repository_pb2.EnableRepositoryRequest(repository="default"), timeout=20
    )
    assert retry(hub, broken.job_id).status == pb.BACKUP_STATUS_PENDING


def test_draining_site_starts_nothing_but_ends_what_runs(hub: RunningHub, agent: FakeAgent) -> None:
    broken = failed(hub, agent)
    before = hub.start(request_id="before")
    hub.agents.DrainAgent(inventory_pb2.DrainAgentRequest(site="lab"), timeout=20)

    def require_refused() -> None:
        for start in (hub.start, lambda: retry(hub, broken.job_id)):
            status, reason, facts = refusal(start)
            assert (status, reason) == (Code.FAILED_PRECONDITION, "AGENT_DRAINING")
            assert facts["site"] == "lab"

    require_refused()
    # A VM that nobody has is told first; an agent that is away last.
    assert refusal(lambda: hub.start("nobody"))[1] == "VM_NOT_FOUND"
    assert hub.start(request_id="before").job_id == before.job_id
    give_up(hub, agent, before)
    agent.close()
    hub.wait_until_away("lab")
    require_refused()
    hub.agents.ResumeAgent(inventory_pb2.ResumeAgentRequest(site="lab"), timeout=20)
    assert refusal(hub.start)[1] == "AGENT_AWAY"
