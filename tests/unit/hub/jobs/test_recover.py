"""What a hub finds when it starts again."""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, get_ident
from typing import Any

import pytest
import structlog

from hub.catalog.delete_jobs import delete_job
from hub.catalog.end_job import request_cancel
from hub.catalog.engine import Catalog
from hub.config import HubSettings
from hub.jobs import complete, left_jobs, recover
from hub.jobs.parts import utc_now
from hub.jobs.recovery import Decision
from hub.jobs.removals import remove_deleted_files
from hub.repository import Repository
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm, raw_bytes
from tests.unit.hub.jobs.backups import backed_up, delete
from tests.unit.hub.running_hub import RunningHub, running

DISKS = [FakeDisk("AB"), FakeDisk("CD", key=2001, uuid="u2")]
LEFT_BEHIND = pb.BackupWarning(code="SNAPSHOT_LEFT_BEHIND", message="remove it by hand")


@contextmanager
def with_agent(settings: HubSettings) -> Iterator[tuple[RunningHub, FakeAgent]]:
    with running(settings) as hub, FakeAgent(hub.address, "lab", [FakeVm()]) as agent:
        yield hub, agent.connect()


def catalog_file(settings: HubSettings) -> Path:
    return Path(settings.catalog_url.removeprefix("sqlite:///"))


def copy_of(settings: HubSettings, name: str = "copy.db") -> Path:
    """A copy of the catalog, made while its hub runs (docs/operations.md)."""
    copy = settings.state_dir / name
    with closing(sqlite3.connect(catalog_file(settings))) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    return copy


def put_back(settings: HubSettings, copy: Path) -> None:
    for beside in ("-wal", "-shm"):
        catalog_file(settings).with_name(catalog_file(settings).name + beside).unlink(True)
    shutil.copy(copy, catalog_file(settings))


@contextmanager
def put_back_and_running(
    settings: HubSettings, copy: Path
) -> Iterator[tuple[RunningHub, list[Any]]]:
    """The hub on the copy, and what it logged when it started."""
    put_back(settings, copy)
    with structlog.testing.capture_logs() as logs, running(settings) as hub:
        yield hub, logs


def kept(logs: list[Any]) -> list[tuple[str, str]]:
    """(level, job id) of the lines about kept files."""
    return [(one["log_level"], one["job_id"]) for one in logs if one["event"] == "job_files_kept"]


def require_readable(hub: RunningHub, *jobs: pb.Backup) -> None:
    """qemu-img reads the jobs' layers, with all below them."""
    for job in jobs:
        for disk in job.disks:
            path = hub.repository_folder() / disk.qcow2_path
            for check in (["check", "-q"], ["info", "--backing-chain"]):
                subprocess.run(
                    ["qemu-img", *check, path], check=True, timeout=30, stdout=subprocess.DEVNULL
                )


def played(hub: RunningHub, agent: FakeAgent, when: str, copy: Callable[[], Path]) -> pb.Backup:
    """A whole backup of two disks; `when` names the moment at which the copy is made."""
    job = hub.start()
    agent.expect("start_job")
    if when == "pending":
        copy()
    agent.open_job(job.job_id, DISKS)
    agent.expect("job_plan")
    if when == "opened":
        copy()
    agent.upload(job.job_id, 0, DISKS[0].content)
    if when == "half sealed":
        copy()
    agent.upload(job.job_id, 1, DISKS[1].content)
    if when == "sealed":
        copy()
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job.job_id, warnings=[LEFT_BEHIND]))
    return hub.wait(job.job_id)


def incremented(hub: RunningHub, agent: FakeAgent) -> pb.Backup:
    job = hub.start()
    agent.expect("start_job")
    changed = [FakeDisk(".X", change_id="52 aa/2"), FakeDisk("Y.", 2001, "u2", change_id="52 aa/2")]
    agent.run_job(job.job_id, changed)
    done = hub.wait(job.job_id)
    assert done.backup_type == pb.BACKUP_TYPE_INCREMENTAL
    return done


@pytest.mark.parametrize("when", ["pending", "opened", "half sealed"])
def test_older_catalog_that_is_put_back_costs_no_file_of_a_job_that_was_live_in_it(
    settings: HubSettings, when: str
) -> None:
    with with_agent(settings) as (hub, agent):
        first = played(hub, agent, when, lambda: copy_of(settings))
        second = incremented(hub, agent)
        files = hub.files()
        newest = copy_of(settings, "newest.db")
    for _ in range(2):
        with put_back_and_running(settings, settings.state_dir / "copy.db") as (hub, logs):
            assert hub.files() == files
            failed = hub.get(first.job_id)
            assert (failed.status, failed.error.reason) == (
                pb.BACKUP_STATUS_FAILED,
                "HUB_RESTARTED",
            )
            assert kept(logs) == [("error", first.job_id)]
            (line,) = (one for one in logs if one["event"] == "job_files_kept")
            assert line["folder"] == str(hub.repository_folder() / first.context_id / first.job_id)
            assert "newer copy of the catalog" in line["to_do"]
            require_readable(hub, first, second)
        # Also at the start after that one, when the job is failed already.
        with structlog.testing.capture_logs() as logs, running(settings) as hub:
            assert hub.files() == files
            assert kept(logs) == [("error", first.job_id)]
    with put_back_and_running(settings, newest) as (hub, logs):
        assert kept(logs) == []
        assert hub.restored(second.job_id, 0) == raw_bytes("AX")
        assert hub.restored(second.job_id, 1) == raw_bytes("YD")


def test_job_that_was_sealed_in_the_catalog_put_back_is_a_restore_point(
    settings: HubSettings,
) -> None:
    with with_agent(settings) as (hub, agent):
        first = played(hub, agent, "sealed", lambda: copy_of(settings))
        second = incremented(hub, agent)
        files = hub.files()
    with put_back_and_running(settings, settings.state_dir / "copy.db") as (hub, logs):
        again = hub.get(first.job_id)
        assert again.status == pb.BACKUP_STATUS_COMPLETED
        assert [one.code for one in again.warnings] == ["SNAPSHOT_LEFT_BEHIND"]
        assert again.bytes_stored == first.bytes_stored
        assert hub.files() == files
        assert kept(logs) == []
        assert hub.restored(first.job_id, 1) == raw_bytes("CD")
        require_readable(hub, first, second)


@pytest.mark.parametrize("damage", ["layer", "manifest", "facts"])
def test_job_whose_layers_or_facts_are_damaged_is_failed_and_its_files_stay(
    settings: HubSettings, damage: str
) -> None:
    with with_agent(settings) as (hub, agent):
        first = played(hub, agent, "sealed", lambda: copy_of(settings))
        path = hub.repository_folder() / first.disks[0].qcow2_path
        if damage == "layer":
            path.write_bytes(path.read_bytes()[:-1])
        elif damage == "manifest":
            path.with_suffix(".manifest").unlink()
        else:
            path.with_name("job.json").write_text("[")
        files = hub.files()
    with put_back_and_running(settings, settings.state_dir / "copy.db") as (hub, logs):
        status = hub.get(first.job_id).status
        if damage == "facts":
            assert json.loads(path.with_name("job.json").read_text())["job_id"] == first.job_id
            assert status == pb.BACKUP_STATUS_COMPLETED
        else:
            assert status == pb.BACKUP_STATUS_FAILED
            assert kept(logs) == [("error", first.job_id)]
        assert hub.files() == files


def test_completion_whose_commit_was_missed_is_made_at_the_next_start(
    settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The process ends here: nothing after it is done."""

    def killed(*args: object) -> bool:
        raise Killed

    with with_agent(settings) as (hub, agent):
        job = hub.start()
        agent.expect("start_job")
        agent.open_job(job.job_id, [FakeDisk("AB")])
        agent.expect("job_plan")
        agent.upload(job.job_id, 0, "AB")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(complete, "_record", killed)
            complete.complete_backup(hub.parts, job.job_id, [])
        copy = copy_of(settings)
        facts = hub.repository_folder() / job.context_id / job.job_id / "job.json"
        assert json.loads(facts.read_text())["job_id"] == job.job_id
        kept_content = {name: (hub.repository_folder() / name).read_bytes() for name in hub.files()}
    # What ended with the session is put back, as the process's end had left it.
    put_back(settings, copy)
    folder = settings.state_dir / "repository"
    for name, content in kept_content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with running(settings) as hub:
        assert hub.get(job.job_id).status == pb.BACKUP_STATUS_COMPLETED
        assert hub.restored(job.job_id) == raw_bytes("AB")


def test_job_that_had_not_sealed_all_its_disks_goes_on(settings: HubSettings) -> None:
    with with_agent(settings) as (hub, agent):
        job = hub.start()
        agent.expect("start_job")
        agent.open_job(job.job_id, DISKS)
        agent.expect("job_plan")
        agent.upload(job.job_id, 0, "AB")
        files = hub.files()
    with running(settings) as hub:
        assert hub.get(job.job_id).status == pb.BACKUP_STATUS_RUNNING
        assert hub.files() == files
        with FakeAgent(hub.address, "lab", [FakeVm()]) as agent:
            agent.connect()
            # Another run of the agent, which knows nothing of the job.
            told = agent.expect("resume_job")
            assert (told.start.job_id, told.snapshot) == (job.job_id, "snapshot-7")
            assert [disk.disk_uuid for disk in told.disks] == [disk.uuid for disk in DISKS]
            agent.run_job(job.job_id, DISKS)
            assert hub.wait(job.job_id).status == pb.BACKUP_STATUS_COMPLETED
        assert hub.restored(job.job_id, 1) == raw_bytes("CD")


@pytest.mark.parametrize("opened", [False, True])
def test_job_that_was_to_be_cancelled_is_cancelled_at_the_next_start(
    settings: HubSettings, opened: bool
) -> None:
    with with_agent(settings) as (hub, agent):
        job = hub.start()
        agent.expect("start_job")
        if opened:
            agent.open_job(job.job_id, DISKS)
            agent.expect("job_plan")
            agent.upload(job.job_id, 0, "AB")
        with hub.parts.catalog.write() as session:
            request_cancel(session, job.job_id, "wrong window", hub.parts.now())
    with running(settings) as hub:
        ended = hub.get(job.job_id)
        assert (ended.status, ended.error.message) == (pb.BACKUP_STATUS_CANCELLED, "wrong window")
        assert hub.files() == set()


def test_job_that_was_never_opened_is_queued_and_started_again(settings: HubSettings) -> None:
    with with_agent(settings) as (hub, agent):
        job = hub.start()
        agent.expect("start_job")
    with with_agent(settings) as (hub, agent):
        assert hub.parts.recovery.report is not None
        assert [one.decision for one in hub.parts.recovery.report.jobs] == [Decision.QUEUED]
        assert agent.expect("start_job").job_id == job.job_id
        agent.run_job(job.job_id, DISKS)
        assert hub.wait(job.job_id).status == pb.BACKUP_STATUS_COMPLETED


def test_kept_files_go_when_their_job_is_deleted(settings: HubSettings) -> None:
    with with_agent(settings) as (hub, agent):
        first = played(hub, agent, "opened", lambda: copy_of(settings))
        other = backed_up(hub, agent, "EF", 7, backup_type=pb.BACKUP_TYPE_FULL)
    with put_back_and_running(settings, settings.state_dir / "copy.db") as (hub, _):
        assert not delete(hub, first.job_id).pending_job_ids
        assert {name.split("/")[1] for name in hub.files()} == {other.job_id}
    with structlog.testing.capture_logs() as logs, running(settings):
        pass
    assert kept(logs) == []


def test_hub_starts_while_a_repository_hangs_and_its_late_sweep_harms_no_new_backup(
    settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_agent(settings) as (hub, agent):
        left = hub.start()
        agent.expect("start_job")
        doomed = backed_up_elsewhere(hub)
        copy = copy_of(settings)
    put_back(settings, copy)
    catalog = Catalog(settings.catalog_url)
    with catalog.write() as session:
        delete_job(session, doomed.job_id, now=utc_now())
    catalog.close()
    for module, name in (
        (left_jobs, "FACTS_S"),
        (recover, "DELETED_FILES_S"),
        (recover, "LEFTOVERS_S"),
    ):
        monkeypatch.setattr(module, name, 0.1)
    go_on, real, starting = Event(), Repository._check_identity, get_ident()

    def hang(self: Repository) -> None:
        """As on a mount that does not answer."""
        assert get_ident() != starting, "the hub would not start"
        assert go_on.wait(60)
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "_check_identity", hang)
        with structlog.testing.capture_logs() as logs, with_agent(settings) as (hub, agent):
            # Nobody knows whether its job was completed: it is not begun again, and may be cancelled.
            assert hub.parts.queue.waiting() == hub.parts.queue.running() == []
            hub.cancel(left.job_id)
            assert hub.wait(left.job_id).status == pb.BACKUP_STATUS_CANCELLED
            assert hub.parts.recovery.report is not None
            assert len(hub.parts.recovery.report.problems) == 3
            assert [one["event"] for one in logs if one["log_level"] == "error"] == [
                "left_jobs_not_looked_at",
                "repository_unusable",
            ]
            go_on.set()
            done = backed_up(hub, agent, "CD", 3)
            assert remove_deleted_files(hub.parts) == []
            assert {name.split("/")[1] for name in hub.files()} == {done.job_id}
            assert hub.restored(done.job_id) == raw_bytes("CD")


def backed_up_elsewhere(hub: RunningHub) -> pb.Backup:
    """A backup of another site's VM."""
    with FakeAgent(hub.address, "far", [FakeVm("other", instance_uuid="u2")]) as agent:
        return backed_up(hub, agent.connect(), "AB", 1, vm="other")


def test_restart_without_a_layer_keeps_what_is_left_of_its_restore_point(
    settings: HubSettings,
) -> None:
    with with_agent(settings) as (hub, agent):
        done = backed_up(hub, agent, "AB", 1)
        files = hub.files()
        layer = hub.repository_folder() / done.disks[0].qcow2_path
    away = layer.rename(layer.parents[3] / "away.qcow2")
    with running(settings):
        pass
    away.rename(layer)
    with running(settings) as hub:
        assert hub.files() == files
        assert hub.get(done.job_id).status == pb.BACKUP_STATUS_COMPLETED
        assert hub.restored(done.job_id) == raw_bytes("AB")
