"""Agents that come, go, vanish and misbehave."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import pytest

from hub.config import HubSettings
from hub.jobs import end
from hub.jobs.vain_runs import MAX_VAIN_RUNS
from hub.main import Hub
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import inventory_pb2
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm, Uploading, batches, raw_bytes
from tests.unit.hub.running_hub import RunningHub, refused

MakeAgent = Callable[..., FakeAgent]


def session_refusal(agent: FakeAgent) -> tuple[grpc.StatusCode, str]:
    error = agent.ended()
    assert error is not None
    return refused(error)[:2]


def wait_until_away(hub: RunningHub, agent: FakeAgent, make: MakeAgent) -> FakeAgent:
    """A new agent of the site, once the hub lets go of the old one."""
    while True:
        try:
            return make(agent.site, *agent.vms)
        except grpc.RpcError as error:
            assert refused(error)[1] == "SITE_TAKEN"


def test_agent_is_listed_while_connected_and_known_afterwards(
    hub: RunningHub, agents: MakeAgent
) -> None:
    agent = agents("lab", FakeVm("a"), FakeVm("b", moref="vm-2", instance_uuid="u2"))

    def listed() -> inventory_pb2.Agent:
        (one,) = hub.agents.ListAgents(inventory_pb2.ListAgentsRequest(), timeout=20).agents
        return one

    assert listed().connected
    assert (listed().site, listed().hostname, listed().vm_count) == ("lab", "host-1", 2)
    hub.start("a")
    assert listed().running_jobs == 1
    agent.close()
    again = wait_until_away(hub, agent, agents)
    assert again.agent_id == agent.agent_id != ""
    assert listed().connected
    assert listed().running_jobs == 1
    again.close()
    vms = hub.inventory.ListVirtualMachines(
        inventory_pb2.ListVirtualMachinesRequest(), timeout=20
    ).virtual_machines
    assert [(vm.name, vm.site) for vm in vms] == [("a", "lab"), ("b", "lab")]


def test_second_agent_of_a_site_is_refused(hub: RunningHub, agent: FakeAgent) -> None:
    with FakeAgent(hub.address, "lab") as second:
        assert session_refusal(second) == (grpc.StatusCode.ALREADY_EXISTS, "SITE_TAKEN")
    # The first one is not disturbed.
    job = hub.start()
    assert agent.expect("start_job").job_id == job.job_id


@pytest.mark.parametrize("site", ["", " lab", "a\nb", "x" * 65], ids=repr)
def test_unusable_site_name_is_refused(hub: RunningHub, site: str) -> None:
    with FakeAgent(hub.address, site) as agent:
        assert session_refusal(agent)[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_second_registration_ends_the_session(hub: RunningHub, agent: FakeAgent) -> None:
    agent.send(register=session_pb.AgentRegister(site="lab"))
    assert session_refusal(agent) == (grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VIOLATION")


def test_job_of_another_site_ends_the_session(hub: RunningHub, agents: MakeAgent) -> None:
    agent = agents("lab")
    other = agents("dr", FakeVm("web", instance_uuid="u2"))
    job = hub.start("pgtest1")
    other.send(job_failed=session_pb.JobFailed(job_id=job.job_id))
    assert session_refusal(other)[1] == "PROTOCOL_VIOLATION"
    assert agent.expect("start_job").job_id == job.job_id
    assert hub.get(job.job_id).status == pb.BACKUP_STATUS_PENDING


def test_silent_agent_is_given_up(settings: HubSettings) -> None:
    with (
        Hub(settings, heartbeat_interval_s=0.05) as running,
        FakeAgent(str(running.address), "lab") as agent,
    ):
        assert session_refusal(agent) == (grpc.StatusCode.DEADLINE_EXCEEDED, "AGENT_SILENT")


TWO_DISKS = [FakeDisk("AB"), FakeDisk("CD", key=2001, uuid="u2")]


def half_done(hub: RunningHub, agent: FakeAgent) -> str:
    """A job of two disks: one is sealed, of the other a frame is acknowledged."""
    job_id = hub.start().job_id
    agent.expect("start_job")
    agent.open_job(job_id, TWO_DISKS)
    agent.expect("job_plan")
    agent.upload(job_id, 0, "AB")
    with Uploading(agent.channel) as up:
        up.open(job_id, 1)
        up.frame(batches("CD")[0])
        up.until("ack")
    hub.wait_until_no_upload()
    return job_id


def back(hub: RunningHub, agent: FakeAgent, *job_ids: str, **more: Any) -> FakeAgent:
    """Another session of the agent's run."""
    more = {"run_id": agent.run_id, "job_ids": job_ids, **more}
    return FakeAgent(hub.address, agent.site, agent.vms, **more)


def finish(hub: RunningHub, agent: FakeAgent, job_id: str) -> None:
    """Upload what is not sealed, and report; all of it may be repeated."""
    agent.upload(job_id, 1, "CD")
    agent.send(job_read=session_pb.JobRead(job_id=job_id))
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job_id))
    agent.closed(job_id)
    assert hub.get(job_id).status == pb.BACKUP_STATUS_COMPLETED
    assert hub.restored(job_id, 0) == raw_bytes("AB")
    assert hub.restored(job_id, 1) == raw_bytes("CD")


def test_jobs_of_an_agent_that_keeps_none_fail_with_its_session(hub: RunningHub) -> None:
    with FakeAgent(hub.address, "lab", [FakeVm()], keeps_jobs=False) as agent:
        agent.connect()
        job_id = half_done(hub, agent)
    failed = hub.wait(job_id)
    assert (failed.status, failed.error.reason) == (pb.BACKUP_STATUS_FAILED, "AGENT_LOST")
    hub.wait_for_files(set())


@pytest.mark.parametrize("goodbye", [False, True], ids=["broken", "ended"])
def test_job_goes_on_in_another_session_of_the_same_run(
    hub: RunningHub, agent: FakeAgent, goodbye: bool
) -> None:
    job_id = half_done(hub, agent)
    if goodbye:
        agent._out.put(None)
        assert agent.ended() is None
    else:
        agent.close()
    hub.wait_until_away("lab")
    assert hub.get(job_id).status == pb.BACKUP_STATUS_RUNNING
    with back(hub, agent, job_id) as again:
        again.connect()
        assert list(again.registered.live_job_ids) == [job_id]
        assert again.registered.closes_jobs
        assert hub.parts.agents.serves("lab", job_id)
        # What it named is not asked for again: the next command is the plan.
        again.open_job(job_id, TWO_DISKS)
        assert again.expect("job_plan").job_id == job_id
        finish(hub, again, job_id)


def test_session_that_the_hub_still_has_is_replaced_by_one_of_the_same_run(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job_id = half_done(hub, agent)
    with back(hub, agent, job_id, jobs_in_parallel=3) as again:
        again.connect()
        assert session_refusal(agent) == (grpc.StatusCode.ABORTED, "SESSION_REPLACED")
        assert hub.parts.agents.presence("lab").connected
        assert hub.parts.agents.jobs_in_parallel("lab") == 3
        finish(hub, again, job_id)


def test_another_run_of_the_agent_is_asked_to_resume(
    hub: RunningHub, agent: FakeAgent, agents: MakeAgent
) -> None:
    job_id = half_done(hub, agent)
    agent.close()
    hub.wait_until_away("lab")
    again = agents()
    told = again.expect("resume_job")
    assert (told.start.job_id, told.start.vmware_vm_id) == (job_id, "vm-1")
    assert told.snapshot == "snapshot-7"
    assert [(one.disk_uuid, one.change_id) for one in told.disks] == [
        (one.uuid, one.change_id) for one in TWO_DISKS
    ]
    again.open_job(job_id, TWO_DISKS)
    assert again.expect("job_plan").job_id == job_id
    finish(hub, again, job_id)


@pytest.mark.parametrize(
    ("disks", "told"),
    [
        (TWO_DISKS[:1], "disks [0, 1], not [0]"),
        ([TWO_DISKS[0], FakeDisk("CD", key=2001, uuid="u3")], "disk_uuid of disk 1"),
        ([TWO_DISKS[0], FakeDisk("CDE", key=2001, uuid="u2")], "capacity_bytes of disk 1"),
        ([TWO_DISKS[0], replace(TWO_DISKS[1], change_id="52 aa/9")], "change_id of disk 1"),
    ],
    ids=["fewer", "another", "grown", "later"],
)
def test_job_whose_snapshot_is_another_one_fails(
    hub: RunningHub, agent: FakeAgent, agents: MakeAgent, disks: list[FakeDisk], told: str
) -> None:
    job_id = half_done(hub, agent)
    agent.close()
    hub.wait_until_away("lab")
    again = agents()
    again.expect("resume_job")
    again.open_job(job_id, disks)
    assert again.expect("cancel_job").job_id == job_id
    failed = hub.wait(job_id)
    assert failed.error.reason == "SNAPSHOT_CHANGED"
    assert told in failed.error.message
    again.closed(job_id)
    hub.wait_for_files(set())


def test_pending_job_of_a_lost_agent_is_started_again(
    hub: RunningHub, agent: FakeAgent, agents: MakeAgent
) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.close()
    hub.wait_until_away("lab")
    assert hub.get(job.job_id).status == pb.BACKUP_STATUS_PENDING
    again = agents()
    assert again.expect("start_job").job_id == job.job_id
    again.run_job(job.job_id, [FakeDisk("A")])
    assert hub.wait(job.job_id).status == pb.BACKUP_STATUS_COMPLETED


def run_in_vain(hub: RunningHub, agents: MakeAgent, job_id: str, command: str) -> None:
    """A run of the agent that is given the job, and ends without having brought it on."""
    with agents() as run:
        told = run.expect(command)
        assert (told.start if command == "resume_job" else told).job_id == job_id
        run.report()
    hub.wait_until_away("lab")


@pytest.mark.parametrize("command", ["start_job", "resume_job"])
def test_job_that_ends_run_after_run_of_its_agent_fails(
    hub: RunningHub, agent: FakeAgent, agents: MakeAgent, command: str
) -> None:
    if command == "start_job":
        job_id = hub.start().job_id
        agent.expect("start_job")
    else:
        job_id = half_done(hub, agent)
    agent.close()
    hub.wait_until_away("lab")
    for _ in range(MAX_VAIN_RUNS):
        run_in_vain(hub, agents, job_id, command)
    last = agents()
    assert last.expect("cancel_job").job_id == job_id
    failed = hub.wait(job_id)
    assert failed.error.reason == "AGENT_LOST"
    assert failed.error.message.startswith(f"{MAX_VAIN_RUNS} runs of the agent of site 'lab'")
    hub.wait_for_files(set())


def test_job_that_a_run_brings_on_may_be_left_again(
    hub: RunningHub, agent: FakeAgent, agents: MakeAgent
) -> None:
    job_id = half_done(hub, agent)
    agent.close()
    hub.wait_until_away("lab")
    for _ in range(MAX_VAIN_RUNS - 1):
        run_in_vain(hub, agents, job_id, "resume_job")
    with agents() as run, Uploading(run.channel) as up:
        run.expect("resume_job")
        run.open_job(job_id, TWO_DISKS)
        run.expect("job_plan")
        up.open(job_id, 1)
        up.frame(batches("CD")[0])
        up.until("ack")
    hub.wait_until_away("lab")
    for _ in range(MAX_VAIN_RUNS):
        run_in_vain(hub, agents, job_id, "resume_job")
    assert hub.get(job_id).status == pb.BACKUP_STATUS_RUNNING


def test_jobs_that_wait_in_the_queue_do_not_count_the_runs_of_their_agent(
    hub: RunningHub, agents: MakeAgent
) -> None:
    one_at_a_time = partial(
        agents, "lab", FakeVm(), FakeVm("pgtest2", "vm-2", "5020-2"), jobs_in_parallel=1
    )
    with one_at_a_time() as first:
        job_id = hub.start().job_id
        first.expect("start_job")
        waiting = hub.start("pgtest2").job_id
    hub.wait_until_away("lab")
    for _ in range(MAX_VAIN_RUNS):
        run_in_vain(hub, one_at_a_time, job_id, "start_job")
    with one_at_a_time() as last:
        assert last.expect("start_job").job_id == waiting
        assert last.expect("cancel_job").job_id == job_id
    assert hub.get(job_id).error.reason == "AGENT_LOST"


def test_job_that_was_read_is_completed_when_no_run_names_it(
    hub: RunningHub, agent: FakeAgent, agents: MakeAgent
) -> None:
    job_id = half_done(hub, agent)
    agent.upload(job_id, 1, "CD")
    agent.send(job_read=session_pb.JobRead(job_id=job_id))
    agent.report()
    agent.close()
    hub.wait_until_away("lab")
    assert hub.get(job_id).status == pb.BACKUP_STATUS_RUNNING
    again = agents()
    done = hub.wait(job_id)
    assert done.status == pb.BACKUP_STATUS_COMPLETED
    assert [one.code for one in done.warnings] == ["SNAPSHOT_REMOVAL_UNKNOWN"]
    # The agent that repeats what it told before changes nothing.
    again.send(job_read=session_pb.JobRead(job_id=job_id))
    again.send(job_uploaded=session_pb.JobUploaded(job_id=job_id))
    again.closed(job_id)
    assert hub.get(job_id) == done


def test_job_is_read_only_when_all_its_disks_are_sealed(hub: RunningHub, agent: FakeAgent) -> None:
    job_id = half_done(hub, agent)
    agent.send(job_read=session_pb.JobRead(job_id=job_id))
    assert agent.expect("cancel_job").job_id == job_id
    assert hub.wait(job_id).error.reason == "PROTOCOL_VIOLATION"


def test_jobs_that_are_named_and_not_live_are_cancelled(hub: RunningHub, agent: FakeAgent) -> None:
    job_id = half_done(hub, agent)
    agent.send(job_failed=session_pb.JobFailed(job_id=job_id))
    agent.closed(job_id)
    with back(hub, agent, job_id, "unknown") as again:
        again.connect()
        assert [again.expect("cancel_job").job_id for _ in range(2)] == [job_id, "unknown"]
        warning = pb.BackupWarning(code="SNAPSHOT_LEFT_BEHIND", message="remove it by hand")
        for _ in range(2):
            again.send(job_failed=session_pb.JobFailed(job_id=job_id, warnings=[warning]))
            again.closed(job_id)
        assert [one.code for one in hub.get(job_id).warnings] == ["SNAPSHOT_LEFT_BEHIND"]


@pytest.mark.parametrize("stage", ["queued", "started", "opened", "uploading", "sealed", "away"])
def test_job_is_cancelled_whatever_its_agent_does(
    hub: RunningHub,
    agent: FakeAgent,
    agents: MakeAgent,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(end, "ANSWER_TIMEOUT_S", 0.3)  # the agent does not answer in time
    with Uploading(agent.channel) as up:
        job_id = hub.start().job_id
        agent.expect("start_job")
        if stage not in ("queued", "started"):
            agent.open_job(job_id, TWO_DISKS)
            agent.expect("job_plan")
        if stage in ("uploading", "away"):
            up.open(job_id, 0, bytes_planned=2 * 65536)
            up.frame(batches("AB")[0])
            up.until("ack")
        if stage == "sealed":
            agent.upload(job_id, 0, "AB")
            agent.upload(job_id, 1, "CD")
        if stage in ("away", "queued"):
            agent.close()
            hub.wait_until_away("lab")
        hub.cancel(job_id, "wrong window")
        ended = hub.wait(job_id)
    assert (ended.status, ended.error.message) == (pb.BACKUP_STATUS_CANCELLED, "wrong window")
    hub.wait_for_files(set())
    if stage in ("away", "queued"):
        again = agents()
    else:
        again = agent
        assert agent.expect("cancel_job").job_id == job_id
    warning = pb.BackupWarning(code="SNAPSHOT_LEFT_BEHIND", message="remove it by hand")
    again.send(job_failed=session_pb.JobFailed(job_id=job_id, cancelled=True, warnings=[warning]))
    again.closed(job_id)
    late = hub.get(job_id)
    assert late.status == pb.BACKUP_STATUS_CANCELLED
    assert [one.code for one in late.warnings] == ["SNAPSHOT_LEFT_BEHIND"]
    # It is no base.
    job = hub.start()
    again.expect("start_job")
    plan = again.run_job(job.job_id, [FakeDisk("AB", change_id="52 aa/2")])
    assert [disk.backup_type for disk in plan.disks] == [pb.BACKUP_TYPE_FULL]


def test_failure_the_agent_reports_is_shown(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.send(
        job_failed=session_pb.JobFailed(
            job_id=job.job_id,
            error=pb.BackupError(reason="NO_DISKS", message="VM 'pgtest1' has no disks"),
            warnings=[pb.BackupWarning(code="DISK_SKIPPED", message="independent")],
        )
    )
    failed = hub.wait(job.job_id)
    assert (failed.error.reason, failed.error.message) == ("NO_DISKS", "VM 'pgtest1' has no disks")
    assert failed.warnings[0].code == "DISK_SKIPPED"


def test_job_reported_as_uploaded_before_it_was_opened_fails(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job.job_id))
    assert agent.expect("cancel_job").job_id == job.job_id
    assert hub.wait(job.job_id).error.reason == "PROTOCOL_VIOLATION"


def test_what_an_agent_says_is_clipped_to_what_rows_take(hub: RunningHub, agent: FakeAgent) -> None:
    long = "x" * 70_000
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(
        job.job_id,
        [FakeDisk("A", label=long, uuid=long, change_id=long)],
        warnings=[pb.BackupWarning(code=long, message=long, disk_label=long)] * 5,
        other_snapshots=[long],
    )
    assert agent.expect("job_plan").job_id == job.job_id
    hub.cancel(job.job_id, "x" * 4096)
    agent.expect("cancel_job")
    agent.send(
        job_failed=session_pb.JobFailed(
            job_id=job.job_id, error=pb.BackupError(reason=long, message=long), cancelled=True
        )
    )
    ended = hub.wait(job.job_id)
    assert ended.status == pb.BACKUP_STATUS_CANCELLED
    assert len(ended.error.message) == 4096
    (disk,) = ended.disks
    assert (len(disk.label), disk.disk_uuid, disk.disk_change_id) == (255, "", "")
    assert {(len(one.code), len(one.message), len(one.disk_label)) for one in ended.warnings} == {
        (64, 4096, 255)
    }


@pytest.mark.parametrize("capacity", [2**62, 2**63, 2**64 - 1])
def test_disk_that_is_too_large_to_be_one_fails_its_job(
    hub: RunningHub, agent: FakeAgent, capacity: int
) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(job.job_id, [FakeDisk("A", capacity_bytes=capacity)])
    assert hub.wait(job.job_id).error.reason == "PROTOCOL_VIOLATION"


def test_job_without_disks_fails(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(job.job_id, [])
    assert agent.expect("cancel_job").job_id == job.job_id
    assert hub.wait(job.job_id).error.reason == "NO_DISKS"


def test_cancelled_job_ends_when_the_agent_has_cleaned_up(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(job.job_id, [FakeDisk("A"), FakeDisk("AB", key=2001, uuid="u2")])
    agent.expect("job_plan")
    agent.upload(job.job_id, 0, "A")
    with Uploading(agent.channel) as up:
        up.open(job.job_id, 1, bytes_planned=2 * 65536)
        up.frame(batches("AB")[0])
        up.until("ack")
        assert hub.cancel(job.job_id, "wrong window").status == pb.BACKUP_STATUS_RUNNING
        told = agent.expect("cancel_job")
        assert (told.job_id, told.reason) == (job.job_id, "wrong window")
        up.call.cancel()
        hub.wait_until_no_upload()
    assert hub.get(job.job_id).status == pb.BACKUP_STATUS_RUNNING
    agent.send(job_failed=session_pb.JobFailed(job_id=job.job_id, cancelled=True))
    ended = hub.wait(job.job_id)
    assert ended.status == pb.BACKUP_STATUS_CANCELLED
    # Breaking off the upload was how the agent obeyed, not a failure of the disk.
    assert [disk.status for disk in ended.disks] == [pb.BACKUP_STATUS_CANCELLED] * 2
    for told in (ended, *ended.disks):
        assert (told.error.reason, told.error.message) == ("CANCELLED", "wrong window")
    # What was sent had been read, though the agent had not yet said so.
    assert ended.disks[1].bytes_read == 65536 >= ended.disks[1].bytes_transferred > 0
    hub.wait_for_files(set())
    # Cancelling what has ended changes nothing.
    assert hub.cancel(job.job_id).status == pb.BACKUP_STATUS_CANCELLED


def test_cancel_comes_too_late_for_a_completed_job(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk("A")])
    hub.wait(job.job_id)
    assert hub.cancel(job.job_id).status == pb.BACKUP_STATUS_COMPLETED
    assert hub.files() != set()


def test_completion_is_taken_once_when_reported_twice(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk("A")])
    done = hub.wait(job.job_id)
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job.job_id))
    agent.send(job_failed=session_pb.JobFailed(job_id=job.job_id))
    agent.report()
    assert hub.get(job.job_id) == done


def test_agent_behind_is_told_that_the_job_ended(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.send(job_failed=session_pb.JobFailed(job_id=job.job_id))
    hub.wait(job.job_id)
    agent.open_job(job.job_id, [FakeDisk("A")])
    assert agent.expect("cancel_job").job_id == job.job_id
