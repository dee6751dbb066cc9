"""Jobs that nobody else ends."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from threading import Event
from threading import enumerate as threads
from typing import Any

import pytest

from hub.errors import CatalogUnavailable
from hub.jobs import complete, end
from hub.jobs.parts import utc_now
from hub.jobs.reaper import Reaper
from hub.repository import Repository
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm, Uploading, batches, raw_bytes
from tests.unit.hub.running_hub import RunningHub, refusal

MakeAgent = Callable[..., FakeAgent]


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reaper(hub: RunningHub, clock: Clock) -> Reaper:
    hub.parts.leases._clock = clock
    return Reaper(hub.parts, clock)


def over(hub: RunningHub) -> float:
    """Longer than a lease lasts."""
    return hub.parts.leases.lease_s + 1


def patience(hub: RunningHub) -> float:
    """Longer than a lease and the wait after it."""
    return over(hub) + hub.parts.patience.resume_wait_s


def opened(hub: RunningHub, agent: FakeAgent) -> str:
    job_id = hub.start().job_id
    agent.expect("start_job")
    agent.open_job(job_id, [FakeDisk("AB")])
    agent.expect("job_plan")
    return job_id


@pytest.fixture
def no_ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The catalog takes no end of a job, until this is called."""

    def unavailable(*args: object) -> bool:
        raise CatalogUnavailable("database is locked")

    monkeypatch.setattr(end, "_record", unavailable)
    return monkeypatch.undo


def test_owed_end_is_recorded_once_the_catalog_is_back(
    hub: RunningHub, agent: FakeAgent, no_ends: Callable[[], None], reaper: Reaper
) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(job.job_id, [])
    assert agent.expect("cancel_job").job_id == job.job_id
    reaper.sweep()
    assert hub.get(job.job_id).status == pb.BACKUP_STATUS_PENDING
    no_ends()
    reaper.sweep()
    assert hub.wait(job.job_id).error.reason == "NO_DISKS"
    assert hub.parts.owed.items() == []


def test_job_that_nobody_looks_after_is_queued_again(
    hub: RunningHub, agent: FakeAgent, reaper: Reaper
) -> None:
    job = hub.start()
    agent.expect("start_job")
    # As if it had been committed, and neither queued nor sent.
    hub.parts.queue.done(job.job_id)
    hub.parts.leases.end(job.job_id)
    reaper.sweep()
    assert hub.parts.queue.waiting_count() == 0
    reaper.sweep()
    reaper.sweep()
    assert agent.expect("start_job").job_id == job.job_id


def test_running_job_whose_agent_is_silent_is_offered_again_and_then_stalled(
    hub: RunningHub, agent: FakeAgent, reaper: Reaper, clock: Clock
) -> None:
    job_id = opened(hub, agent)
    reaper.sweep()
    agent.report()  # nothing was said
    clock.now += over(hub)
    for _ in range(3):
        reaper.sweep()
    assert agent.expect("resume_job").start.job_id == job_id
    clock.now += over(hub)
    reaper.sweep()
    assert agent.expect("resume_job").start.job_id == job_id
    clock.now += patience(hub)
    reaper.sweep()
    stalled = hub.wait(job_id)
    assert stalled.error.reason == "JOB_STALLED"
    assert f"sendense job retry {job_id}" in stalled.error.message
    # In the three looks at the first end of the lease it was asked once.
    assert agent.expect("cancel_job").job_id == job_id
    hub.wait_for_files(set())


def test_running_job_whose_agent_stays_away_is_lost(
    hub: RunningHub, agent: FakeAgent, reaper: Reaper, clock: Clock
) -> None:
    job_id = opened(hub, agent)
    agent.close()
    hub.wait_until_away("lab")
    clock.now += over(hub)
    reaper.sweep()
    assert hub.get(job_id).status == pb.BACKUP_STATUS_RUNNING
    clock.now += patience(hub)
    reaper.sweep()
    lost = hub.wait(job_id)
    assert lost.error.reason == "AGENT_LOST"
    assert f"start the agent, then sendense job retry {job_id}" in lost.error.message


def test_pending_job_whose_agent_stays_away_is_lost(
    hub: RunningHub, agent: FakeAgent, reaper: Reaper, clock: Clock
) -> None:
    job_id = hub.start().job_id
    agent.close()
    hub.wait_until_away("lab")
    reaper.sweep()
    clock.now += patience(hub)
    reaper.sweep()
    assert hub.wait(job_id).error.reason == "AGENT_LOST"


def test_pending_job_that_its_agent_never_takes_up_is_stalled(
    hub: RunningHub, agent: FakeAgent, reaper: Reaper, clock: Clock
) -> None:
    job_id = hub.start().job_id
    for _ in range(30):
        assert agent.expect("start_job").job_id == job_id
        clock.now += over(hub)
        reaper.sweep()
        if hub.get(job_id).status != pb.BACKUP_STATUS_PENDING:
            break
    assert hub.get(job_id).error.reason == "JOB_STALLED"
    assert clock.now < 2 * patience(hub)


def test_job_that_was_read_is_completed_when_its_agent_stays_away(
    hub: RunningHub, agent: FakeAgent, reaper: Reaper, clock: Clock
) -> None:
    job_id = opened(hub, agent)
    agent.upload(job_id, 0, "AB")
    agent.send(job_read=session_pb.JobRead(job_id=job_id))
    agent.report()
    agent.close()
    hub.wait_until_away("lab")
    clock.now += patience(hub)
    reaper.sweep()
    done = hub.get(job_id)
    assert done.status == pb.BACKUP_STATUS_COMPLETED
    assert [one.code for one in done.warnings] == ["SNAPSHOT_REMOVAL_UNKNOWN"]
    assert hub.restored(job_id) == raw_bytes("AB")


def test_jobs_of_an_agent_that_names_none_last_as_long_as_it_tells_anything(
    hub: RunningHub, reaper: Reaper, clock: Clock
) -> None:
    with FakeAgent(hub.address, "lab", [FakeVm()], keeps_jobs=False) as agent:
        agent.connect()
        job_id = opened(hub, agent)
        for _ in range(30):
            clock.now += over(hub) - 2
            agent.send(heartbeat=session_pb.AgentHeartbeat())
            agent.report()
            reaper.sweep()
        agent.upload(job_id, 0, "AB")
        agent.send(job_uploaded=session_pb.JobUploaded(job_id=job_id))
        assert hub.wait(job_id).status == pb.BACKUP_STATUS_COMPLETED


def test_job_whose_agent_fails_whenever_it_is_asked_to_resume_it_is_given_up(
    hub: RunningHub, agents: MakeAgent, reaper: Reaper, clock: Clock
) -> None:
    agent = agents()
    job_id = opened(hub, agent)
    while hub.get(job_id).status == pb.BACKUP_STATUS_RUNNING and clock.now < 2 * patience(hub):
        agent.close()
        hub.wait_until_away("lab")
        agent = agents()
        assert agent.expect("resume_job").start.job_id == job_id
        clock.now += patience(hub) / 4
        reaper.sweep()
    assert hub.get(job_id).error.reason == "JOB_STALLED"


def test_repository_that_hangs_at_a_completion_holds_up_nothing_else(
    hub: RunningHub, agents: MakeAgent, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agents("lab", FakeVm(), FakeVm("other", moref="vm-2", instance_uuid="u2"))
    job_id = opened(hub, agent)
    agent.upload(job_id, 0, "AB")
    monkeypatch.setattr(complete, "FACTS_S", 0.2)
    go_on, real = Event(), Repository.write_job_facts

    def hang(self: Repository, *arguments: Any) -> None:
        assert go_on.wait(60)
        real(self, *arguments)

    monkeypatch.setattr(Repository, "write_job_facts", hang)
    agent.send(job_read=session_pb.JobRead(job_id=job_id))
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job_id))
    agent.report()
    try:
        assert hub.start("other").job_id == agent.expect("start_job").job_id
        reaper.sweep()
        assert hub.get(job_id).status == pb.BACKUP_STATUS_RUNNING
        assert [one.name for one in threads()].count(f"folder-facts of {job_id}") == 1
    finally:
        go_on.set()
    monkeypatch.setattr(complete, "FACTS_S", 10.0)
    reaper.sweep()
    assert hub.get(job_id).status == pb.BACKUP_STATUS_COMPLETED
    assert hub.restored(job_id) == raw_bytes("AB")


@pytest.mark.hostile
def test_job_that_its_agent_is_at_work_on_is_stalled_only_once_it_is_named_no_more(
    hub: RunningHub, agents: MakeAgent, reaper: Reaper, clock: Clock
) -> None:
    agent, other = agents(), agents("dr", FakeVm("c", instance_uuid="c"))
    job_id = opened(hub, agent)

    def names(one: FakeAgent, *job_ids: str) -> None:
        one.send(heartbeat=session_pb.AgentHeartbeat(job_ids=job_ids))
        one.report()

    for _ in range(30):
        clock.now += over(hub) - 2
        names(agent, job_id, "nobody's")
        reaper.sweep()
    assert hub.get(job_id).status == pb.BACKUP_STATUS_RUNNING
    clock.now += patience(hub)
    names(agent)
    names(other, job_id)  # it is none of that agent's
    reaper.sweep()
    assert hub.get(job_id).error.reason == "JOB_STALLED"
    assert agent.expect("cancel_job").job_id == job_id
    names(agent, job_id)  # it cleans up, which revives nothing
    assert hub.get(job_id).status == pb.BACKUP_STATUS_FAILED


def test_clock_that_jumps_changes_nothing_but_times(
    hub: RunningHub, agents: MakeAgent, reaper: Reaper
) -> None:
    shift = timedelta()
    object.__setattr__(hub.parts, "now", lambda: utc_now() + shift)
    agent = agents()
    for years in (1, -2, 1):
        job_id = opened(hub, agent)
        shift += timedelta(days=365 * years)
        reaper.sweep()
        agent.upload(job_id, 0, "AB")
        reaper.sweep()
        agent.send(job_read=session_pb.JobRead(job_id=job_id))
        agent.send(job_uploaded=session_pb.JobUploaded(job_id=job_id))
        agent.closed(job_id)
        assert hub.get(job_id).status == pb.BACKUP_STATUS_COMPLETED
        assert hub.restored(job_id) == raw_bytes("AB")


def test_upload_that_gets_no_parts_is_ended_and_its_job_waits(
    hub: RunningHub, agent: FakeAgent, reaper: Reaper
) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(job.job_id, [FakeDisk("AB")])
    agent.expect("job_plan")
    with Uploading(agent.channel) as up:
        up.open(job.job_id, 0, bytes_planned=2 * 65536)
        up.frame(batches("AB")[0])
        up.until("ack")
        reaper.sweep()
        assert hub.get(job.job_id).status == pb.BACKUP_STATUS_RUNNING
        hub.parts.uploads.expire(0)
        assert refusal(up.sealed)[1] == "UPLOAD_STALLED"
    assert hub.get(job.job_id).status == pb.BACKUP_STATUS_RUNNING
    agent.upload(job.job_id, 0, "AB")
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job.job_id))
    assert hub.wait(job.job_id).status == pb.BACKUP_STATUS_COMPLETED


def test_watcher_hears_of_an_end_whose_files_cannot_be_removed(
    hub: RunningHub, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*args: object) -> None:
        raise CatalogUnavailable("database is locked")

    job = hub.start()
    agent.expect("start_job")
    monkeypatch.setattr(end, "begin_removals", unavailable)
    agent.send(job_failed=session_pb.JobFailed(job_id=job.job_id))
    assert hub.wait(job.job_id).status == pb.BACKUP_STATUS_FAILED
    agent.report()  # the session goes on
