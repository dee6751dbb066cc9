"""Jobs that nobody else ends."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from hub.errors import CatalogUnavailable
from hub.jobs import end
from hub.jobs.reaper import Reaper
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm, Uploading, batches
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
    return Reaper(hub.parts, clock)


@pytest.fixture
def no_ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The catalog takes no end of a job, until this is called."""

    def unavailable(*args: object) -> bool:
        raise CatalogUnavailable("database is locked")

    monkeypatch.setattr(end, "_record", unavailable)
    return monkeypatch.undo


def test_job_of_a_failed_departure_is_ended_when_the_agent_is_back(
    hub: RunningHub, agent: FakeAgent, agents: MakeAgent, no_ends: Callable[[], None]
) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.close()
    hub.wait_until_away("lab")
    assert hub.get(job.job_id).status == pb.BACKUP_STATUS_PENDING
    no_ends()
    agents()
    assert hub.wait(job.job_id).error.reason == "AGENT_LOST"
    assert hub.start().status == pb.BACKUP_STATUS_PENDING


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


def test_job_that_no_session_was_given_is_ended(
    hub: RunningHub, agent: FakeAgent, reaper: Reaper
) -> None:
    job = hub.start()
    hub.parts.agents.job_ended(job.job_id)  # as if it had never been sent
    reaper.sweep()
    assert hub.get(job.job_id).status == pb.BACKUP_STATUS_PENDING
    reaper.sweep()
    assert hub.get(job.job_id).error.reason == "AGENT_LOST"


def test_job_without_uploads_is_ended_and_one_in_the_queue_of_a_busy_agent_is_not(
    hub: RunningHub, agents: MakeAgent, reaper: Reaper, clock: Clock
) -> None:
    agent = agents(
        "lab",
        FakeVm("a", instance_uuid="a"),
        FakeVm("b", moref="vm-2", instance_uuid="b"),
        FakeVm("c", moref="vm-3", instance_uuid="c"),
    )
    uploads, planned, queued = (hub.start(name).job_id for name in "abc")
    for job_id in (uploads, planned):
        agent.expect("start_job")
        agent.open_job(job_id, [FakeDisk("AB")])
    agent.expect("start_job")
    for _ in range(2):
        agent.expect("job_plan")
    with Uploading(agent.channel) as up:
        up.open(uploads, 0, bytes_planned=2 * 65536)
        up.until("opened")
        reaper.sweep()
        clock.now = hub.parts.patience.upload_s + 1
        reaper.sweep()
        assert hub.get(planned).error.reason == "JOB_STALLED"
        assert agent.expect("cancel_job").job_id == planned
        assert hub.get(uploads).status == pb.BACKUP_STATUS_RUNNING
        assert hub.get(queued).status == pb.BACKUP_STATUS_PENDING
        for batch in batches("AB"):
            up.frame(batch)
        up.finish()
        up.sealed()
    # The agent removes its snapshot now, which may take its time.
    clock.now *= 2
    reaper.sweep()
    clock.now *= 2
    reaper.sweep()
    assert hub.get(uploads).status == pb.BACKUP_STATUS_RUNNING
    assert hub.get(queued).status == pb.BACKUP_STATUS_PENDING
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=uploads))
    hub.wait(uploads)
    reaper.sweep()
    clock.now *= 2
    reaper.sweep()
    assert hub.get(queued).error.reason == "JOB_STALLED"


@pytest.mark.hostile
def test_job_that_its_agent_is_at_work_on_is_stalled_only_once_it_is_named_no_more(
    hub: RunningHub, agents: MakeAgent, reaper: Reaper, clock: Clock
) -> None:
    agent = agents("lab", FakeVm("a", instance_uuid="a"), FakeVm("b", "vm-2", instance_uuid="b"))
    other = agents("dr", FakeVm("c", instance_uuid="c"))
    opened, queued = hub.start("a").job_id, hub.start("b").job_id
    for job_id in (opened, queued):
        assert agent.expect("start_job").job_id == job_id
    agent.open_job(opened, [FakeDisk("AB")])
    agent.expect("job_plan")

    def patience_passes() -> None:
        reaper.sweep()
        clock.now += hub.parts.patience.upload_s + 1
        reaper.sweep()

    def names(one: FakeAgent, *job_ids: str) -> None:
        one.send(heartbeat=session_pb.AgentHeartbeat(job_ids=job_ids))
        one.report()

    names(agent, opened, queued, "nobody's")
    for _ in range(3):
        patience_passes()
    assert hub.get(opened).status == pb.BACKUP_STATUS_RUNNING
    assert hub.get(queued).status == pb.BACKUP_STATUS_PENDING
    names(agent, queued)
    names(other, opened)  # it is none of that agent's
    patience_passes()
    stalled = hub.get(opened)
    assert stalled.error.reason == "JOB_STALLED"
    assert "did not name it" in stalled.error.message
    assert agent.expect("cancel_job").job_id == opened
    names(agent, queued, opened)  # it cleans up, which revives nothing
    patience_passes()
    assert hub.get(opened).status == pb.BACKUP_STATUS_FAILED
    assert hub.get(queued).status == pb.BACKUP_STATUS_PENDING
    assert hub.parts.agents.works_on("lab", queued)
    assert not hub.parts.agents.works_on("lab", opened)
    assert not hub.parts.agents.works_on("dr", opened)


def test_upload_that_gets_no_parts_fails_its_job(
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
    assert hub.wait(job.job_id).error.reason == "UPLOAD_STALLED"
    hub.wait_for_files(set())


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
