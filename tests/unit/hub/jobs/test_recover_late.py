"""Jobs of a former run whose files cannot be looked at when the hub starts."""

from contextlib import AbstractContextManager

import pytest

from hub.config import HubSettings
from hub.jobs import left_jobs
from hub.jobs.reaper import Reaper
from hub.repository import LayerWriteFailed, Repository, RepositoryUnusable
from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeVm, raw_bytes
from tests.unit.hub.jobs.test_recover import (
    DISKS,
    copy_of,
    incremented,
    played,
    put_back,
    with_agent,
)
from tests.unit.hub.running_hub import RunningHub, running


def away(*args: object, **more: object) -> None:
    raise RepositoryUnusable("here", "its file system has not answered for 10 s")


def started_without_a_look(
    settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> tuple[AbstractContextManager[RunningHub], RunningHub]:
    """A hub whose repository comes back as soon as it has started."""
    with monkeypatch.context() as patch:
        patch.setattr(left_jobs, "_facts_of", away)
        block = running(settings)
        return block, block.__enter__()


@pytest.mark.parametrize("when", ["pending", "opened"])
@pytest.mark.parametrize("cancelled", [False, True])
def test_older_catalog_costs_no_file_when_its_repository_comes_late(
    settings: HubSettings, monkeypatch: pytest.MonkeyPatch, when: str, cancelled: bool
) -> None:
    with with_agent(settings) as (hub, agent):
        first = played(hub, agent, when, lambda: copy_of(settings))
        second = incremented(hub, agent)
        files = hub.files()
        newest = copy_of(settings, "newest.db")
    put_back(settings, settings.state_dir / "copy.db")
    block, hub = started_without_a_look(settings, monkeypatch)
    try:
        report = hub.parts.recovery.report
        assert report is not None
        assert len(report.problems) == 1
        with FakeAgent(hub.address, "lab", [FakeVm()]) as agent:
            agent.connect()
            agent.report()
            assert not agent._left, "the agent is told nothing of the job"
            if cancelled:
                assert hub.cancel(first.job_id).status == pb.BACKUP_STATUS_CANCELLED
            reaper = Reaper(hub.parts)
            reaper.sweep()
            ended = hub.wait(first.job_id)
            assert ended.error.reason == ("CANCELLED" if cancelled else "HUB_RESTARTED")
            reaper.sweep()
            assert hub.parts.recovery.unseen == set()
            assert hub.files() == files
    finally:
        block.__exit__(None, None, None)
    put_back(settings, newest)
    with running(settings) as hub:
        assert hub.files() == files
        assert hub.restored(second.job_id, 0) == raw_bytes("AX")


@pytest.mark.parametrize("opened", [False, True])
def test_job_goes_on_once_its_repository_was_looked_at(
    settings: HubSettings, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    with with_agent(settings) as (hub, agent):
        job = hub.start()
        agent.expect("start_job")
        if opened:
            agent.open_job(job.job_id, DISKS)
            agent.expect("job_plan")
            agent.upload(job.job_id, 0, DISKS[0].content)
    block, hub = started_without_a_look(settings, monkeypatch)
    try:
        with FakeAgent(hub.address, "lab", [FakeVm()]) as agent:
            agent.connect()
            reaper = Reaper(hub.parts)
            with monkeypatch.context() as patch:
                patch.setattr(Repository, "job_facts", away)
                for _ in range(3):
                    reaper.sweep()
            agent.report()
            assert not agent._left, "the agent is told nothing of the job"
            reaper.sweep()
            agent.expect("resume_job" if opened else "start_job")
            agent.run_job(job.job_id, DISKS)
            assert hub.wait(job.job_id).status == pb.BACKUP_STATUS_COMPLETED
            assert hub.restored(job.job_id, 1) == raw_bytes("CD")
    finally:
        block.__exit__(None, None, None)


def test_facts_that_cannot_be_read_hold_up_no_other_job(
    settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    vms = [FakeVm(), FakeVm("two", "vm-2", "u-2")]
    with running(settings) as hub, FakeAgent(hub.address, "lab", vms) as agent:
        agent.connect()
        bad, good = hub.start(), hub.start(vm="two")
        agent.expect("start_job")
        agent.expect("start_job")
    real = Repository.job_facts

    def bad_sector(self: Repository, context_id: str, job_id: str) -> object:
        if job_id == bad.job_id:
            raise LayerWriteFailed("job.json", "Input/output error")
        return real(self, context_id, job_id)

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "job_facts", bad_sector)
        with running(settings) as hub:
            assert [one.job_id for one in hub.parts.queue.waiting()] == [good.job_id]
            assert hub.parts.recovery.unseen == {bad.job_id}
            assert hub.parts.recovery.report is not None
            (problem,) = hub.parts.recovery.report.problems
            assert bad.job_id in problem


def test_job_that_cannot_be_completed_at_the_start_is_completed_later(
    settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_agent(settings) as (hub, agent):
        job = played(hub, agent, "sealed", lambda: copy_of(settings))
        files = hub.files()
    put_back(settings, settings.state_dir / "copy.db")
    with monkeypatch.context() as patch:
        patch.setattr(Repository, "check_layer", away)
        block = running(settings)
        hub = block.__enter__()
    try:
        assert hub.get(job.job_id).status == pb.BACKUP_STATUS_RUNNING
        with FakeAgent(hub.address, "lab", [FakeVm()]) as agent:
            agent.connect()
            Reaper(hub.parts).sweep()
            done = hub.wait(job.job_id)
            agent.closed(job.job_id)
        assert done.status == pb.BACKUP_STATUS_COMPLETED
        assert [one.code for one in done.warnings] == ["SNAPSHOT_LEFT_BEHIND"]
        assert hub.files() == files
    finally:
        block.__exit__(None, None, None)
