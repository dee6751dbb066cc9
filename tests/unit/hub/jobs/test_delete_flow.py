"""Deletion over gRPC: rows first, then files; what is left is a whole chain."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from threading import enumerate as threads
from typing import Any

import grpc
import pytest

from hub.catalog import delete_jobs as rules
from hub.catalog.file_removals import request_removals
from hub.catalog.queries import find_job
from hub.errors import AgentLost, JobNotFound
from hub.jobs import active_uploads, session_events, states
from hub.jobs import delete as deletion
from hub.jobs.active_uploads import ActiveUploads
from hub.jobs.complete import complete_backup
from hub.jobs.end import end_job
from hub.jobs.reaper import Reaper
from hub.jobs.removals import remove_deleted_files
from hub.jobs.repositories import create_repository
from hub.repository import Repository
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from shared.errors import SendenseError
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm, Uploading, batches, raw_bytes
from tests.unit.hub.jobs.backups import (
    backed_up,
    context_of,
    delete,
    delete_context,
    failed,
    job_ids,
)
from tests.unit.hub.running_hub import RunningHub, refusal

MakeAgent = Callable[..., FakeAgent]
Code = grpc.StatusCode


def files_of(*jobs: pb.Backup) -> set[str]:
    return {
        f"{job.context_id}/{job.job_id}/{name}"
        for job in jobs
        for name in ("disk-0.qcow2", "disk-0.manifest", "job.json")
    }


def failed_now(hub: RunningHub, agent: FakeAgent) -> str:
    """The id of a backup that its agent gave up; it may be deleted already."""
    job_id = hub.start().job_id
    agent.expect("start_job")
    agent.send(job_failed={"job_id": job_id, "error": {"reason": "X", "message": "it broke"}})
    return job_id


def swept(hub: RunningHub) -> list[str]:
    """A look of the reaper, and the end of the removals that it begins: jobs with files left."""
    Reaper(hub.parts).sweep()
    return remove_deleted_files(hub.parts)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + 30, Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.01)


def pending_gauge(hub: RunningHub) -> float | None:
    return hub.parts.metrics.registry.get_sample_value("sendense_hub_removals_pending")


def test_job_deleted_while_its_failure_is_noted_does_not_end_the_session(
    hub: RunningHub, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    gave_up = session_events.agent_gave_up

    def deleted_at_once(parts: Any, job_id: str, *arguments: Any, **options: Any) -> None:
        gave_up(parts, job_id, *arguments, **options)
        delete(hub, job_id)

    monkeypatch.setattr(session_events, "agent_gave_up", deleted_at_once)
    broken = failed_now(hub, agent)
    agent.closed(broken)
    assert job_ids(hub) == []
    assert backed_up(hub, agent, "AB", 1).status == pb.BACKUP_STATUS_COMPLETED


def test_increment_after_the_newest_was_deleted_builds_on_the_one_before(
    hub: RunningHub, agent: FakeAgent
) -> None:
    full = backed_up(hub, agent, "ABCD", 1)
    newest = backed_up(hub, agent, ".X..", 2)
    deleted = delete(hub, newest.job_id)
    assert list(deleted.job_ids) == [newest.job_id]
    assert deleted.bytes_stored == newest.bytes_stored > 0
    assert not deleted.pending_job_ids
    assert hub.files() == files_of(full)
    assert refusal(lambda: hub.get(newest.job_id))[:2] == (Code.NOT_FOUND, "JOB_NOT_FOUND")
    # The agent is asked for what changed since the full: what the deleted one held, and more.
    job = hub.start()
    agent.expect("start_job")
    plan = agent.run_job(job.job_id, [FakeDisk(".XY.", change_id="52 aa/3")])
    assert [(disk.backup_type, disk.base_change_id) for disk in plan.disks] == [
        (pb.BACKUP_TYPE_INCREMENTAL, "52 aa/1")
    ]
    done = hub.wait(job.job_id)
    assert done.disks[0].base_job_id == full.job_id
    assert hub.restored(done.job_id) == raw_bytes("AXYD")
    assert hub.restored(full.job_id) == raw_bytes("ABCD")
    context = context_of(hub, done)
    assert (context.restore_point_count, context.last_backup_id) == (2, done.job_id)
    assert context.bytes_stored == full.bytes_stored + done.bytes_stored


def test_base_is_deleted_with_what_builds_on_it_or_not_at_all(
    hub: RunningHub, agent: FakeAgent
) -> None:
    jobs = [backed_up(hub, agent, "ABCD", number) for number in range(1, 4)]
    status, reason, facts = refusal(lambda: delete(hub, jobs[0].job_id))
    assert (status, reason) == (Code.FAILED_PRECONDITION, "JOB_HAS_DEPENDANTS")
    assert facts["dependants"] == f"{jobs[1].job_id},{jobs[2].job_id}"
    assert hub.files() == files_of(*jobs)
    deleted = delete(hub, jobs[1].job_id, cascade=True)
    assert list(deleted.job_ids) == [jobs[2].job_id, jobs[1].job_id]
    assert deleted.bytes_stored == jobs[1].bytes_stored + jobs[2].bytes_stored
    assert hub.files() == files_of(jobs[0])
    assert hub.restored(jobs[0].job_id) == raw_bytes("ABCD")


def test_context_is_deleted_with_its_folder(hub: RunningHub, agents: MakeAgent) -> None:
    agent = agents("lab", FakeVm(), FakeVm("other", moref="vm-2", instance_uuid="u2"))
    jobs = [backed_up(hub, agent, "AB", number) for number in range(1, 3)]
    kept = backed_up(hub, agent, "CD", 1, vm="other")
    broken = failed(hub, agent)
    deleted = delete_context(hub, broken.context_id)
    assert list(deleted.job_ids) == [broken.job_id, jobs[1].job_id, jobs[0].job_id]
    assert deleted.bytes_stored == sum(job.bytes_stored for job in jobs)
    assert hub.files() == files_of(kept)
    assert not (hub.repository_folder() / broken.context_id).exists()
    assert refusal(lambda: context_of(hub, broken))[1] == "CONTEXT_NOT_FOUND"
    assert refusal(lambda: delete_context(hub, broken.context_id))[1] == "CONTEXT_NOT_FOUND"
    assert job_ids(hub) == [kept.job_id]
    # The VM's next backup is its first one.
    again = backed_up(hub, agent, "EF", 3)
    assert (again.backup_type, again.warnings[:]) == (pb.BACKUP_TYPE_FULL, [])
    assert context_of(hub, again).total_backups_run == 1


def test_last_backup_goes_with_the_context_folder_and_the_context_stays(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = backed_up(hub, agent, "AB", 1)
    delete(hub, job.job_id)
    assert list(hub.repository_folder().iterdir()) == [
        hub.repository_folder() / "sendense-repository.json"
    ]
    context = context_of(hub, job)
    assert (context.restore_point_count, context.bytes_stored) == (0, 0)
    assert (context.last_backup_id, context.HasField("last_backup_at")) == ("", False)
    again = backed_up(hub, agent, "CD", 2)
    assert (again.context_id, again.backup_type) == (job.context_id, pb.BACKUP_TYPE_FULL)
    assert hub.restored(again.job_id) == raw_bytes("CD")


def test_job_that_has_not_ended_is_not_deleted(hub: RunningHub, agent: FakeAgent) -> None:
    base = backed_up(hub, agent, "AB", 1)
    job = hub.start()
    for cascade in (False, True):
        assert refusal(lambda c=cascade: delete(hub, job.job_id, cascade=c))[:2] == (
            Code.FAILED_PRECONDITION,
            "JOB_NOT_ENDED",
        )
    assert refusal(lambda: delete_context(hub, job.context_id))[1] == "JOB_NOT_ENDED"
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk(".X", change_id="52 aa/2")])
    assert hub.wait(job.job_id).status == pb.BACKUP_STATUS_COMPLETED
    assert hub.restored(job.job_id) == raw_bytes("AX")
    assert refusal(lambda: delete(hub, base.job_id))[1] == "JOB_HAS_DEPENDANTS"


@pytest.mark.parametrize("cancelled", [False, True])
def test_unsuccessful_job_is_deleted_with_what_its_upload_left(
    hub: RunningHub, agent: FakeAgent, cancelled: bool
) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(job.job_id, [FakeDisk("ABC")])
    agent.expect("job_plan")
    with Uploading(agent.channel) as up:
        up.open(job.job_id, 0, bytes_planned=3 * 65536)
        up.until("opened")
        up.frame(batches("ABC")[0])
        if cancelled:
            hub.cancel(job.job_id)
            agent.expect("cancel_job")
        failure = session_pb.JobFailed(job_id=job.job_id, cancelled=cancelled)
        agent.send(job_failed=failure)
        ended = hub.wait(job.job_id)
        # At once, with the upload's files perhaps still open.
        deleted = delete(hub, job.job_id)
    assert ended.status == (pb.BACKUP_STATUS_CANCELLED if cancelled else pb.BACKUP_STATUS_FAILED)
    assert list(deleted.job_ids) == [job.job_id]
    assert deleted.bytes_stored == 0
    assert not deleted.pending_job_ids
    hub.wait_until_no_upload()
    assert hub.files() == set()
    assert job_ids(hub) == []
    assert context_of(hub, ended).failed_backups == (0 if cancelled else 1)


def test_files_that_cannot_be_removed_now_are_removed_later(
    hub: RunningHub, agent: FakeAgent
) -> None:
    jobs = [backed_up(hub, agent, "AB", number) for number in range(1, 3)]
    folder = hub.repository_folder()
    away = folder.rename(folder.with_name("unmounted"))
    folder.mkdir()
    deleted = delete_context(hub, jobs[0].context_id)
    both = [jobs[1].job_id, jobs[0].job_id]
    assert (list(deleted.job_ids), list(deleted.pending_job_ids)) == (both, both)
    assert job_ids(hub) == []
    assert swept(hub) == both
    assert pending_gauge(hub) == 2
    assert list(folder.iterdir()) == []
    folder.rmdir()
    away.rename(folder)
    assert hub.files() == files_of(*jobs)
    assert swept(hub) == []
    assert hub.files() == set()
    assert pending_gauge(hub) == 0
    assert hub.parts.metrics.registry.get_sample_value("sendense_hub_jobs_deleted_total") == 2


def test_nothing_outside_the_jobs_folder_is_removed(hub: RunningHub, agent: FakeAgent) -> None:
    precious = hub.repository_folder().with_name("precious")
    (precious / "below").mkdir(parents=True)
    (precious / "below" / "file").write_text("mine")
    job = backed_up(hub, agent, "AB", 1)
    folder = hub.repository_folder() / job.context_id / job.job_id
    (folder / "link").symlink_to(precious)
    (folder / "link-to-file").symlink_to(precious / "below" / "file")
    assert not delete(hub, job.job_id).pending_job_ids
    assert not folder.exists()
    assert (precious / "below" / "file").read_text() == "mine"


@pytest.mark.parametrize("which", ["job", "context"])
def test_folder_that_is_a_link_is_left_and_stays_pending(
    hub: RunningHub, agent: FakeAgent, which: str
) -> None:
    job = backed_up(hub, agent, "AB", 1)
    folder = hub.repository_folder() / job.context_id
    if which == "job":
        folder = folder / job.job_id
    elsewhere = folder.rename(hub.repository_folder().with_name("elsewhere"))
    folder.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    deleted = delete(hub, job.job_id)
    assert list(deleted.pending_job_ids) == [job.job_id]
    assert sorted(elsewhere.rglob("*")) == before
    folder.unlink()
    elsewhere.rename(folder)
    assert swept(hub) == []
    assert hub.files() == set()


def test_folder_of_another_job_of_the_context_stays(hub: RunningHub, agent: FakeAgent) -> None:
    jobs = [backed_up(hub, agent, "AB", 1), backed_up(hub, agent, ".C", 2)]
    # Nobody's: an older copy of the catalog, or a person, may know it.
    unknown = hub.repository_folder() / jobs[0].context_id / "backup-of-somebody"
    unknown.mkdir()
    (unknown / "disk-0.qcow2").touch()
    delete(hub, jobs[1].job_id)
    assert (unknown / "disk-0.qcow2").exists()
    assert hub.restored(jobs[0].job_id) == raw_bytes("AB")
    delete_context(hub, jobs[0].context_id)
    assert hub.files() == {f"{jobs[0].context_id}/backup-of-somebody/disk-0.qcow2"}


def test_imported_job_goes_with_its_layer_files_and_nothing_beside_them(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = backed_up(hub, agent, "AB", 1)
    native = backed_up(hub, agent, "CD", 2, backup_type=pb.BACKUP_TYPE_FULL)
    old = hub.repository_folder() / "old" / "pgtest1"
    old.mkdir(parents=True)
    for name in ("disk-0.qcow2", "disk-0-later.qcow2", "job.json"):
        (old / name).touch()
    with hub.parts.catalog.write() as session:
        row = find_job(session, job.job_id, with_disks=True)
        row.imported_at = row.created_at
        row.disks[0].legacy_id = "backup-pgtest1-1-disk-0"
        row.disks[0].qcow2_path = "old/pgtest1/disk-0.qcow2"
    assert hub.get(job.job_id).HasField("imported_at")
    deleted = delete_context(hub, job.context_id)
    assert list(deleted.job_ids) == [native.job_id, job.job_id]
    assert not deleted.pending_job_ids
    # What lies in a folder of the job's name was made by nobody we know.
    assert hub.files() == files_of(job) | {"old/pgtest1/disk-0-later.qcow2", "old/pgtest1/job.json"}


def test_files_of_a_job_that_is_in_the_catalog_again_stay(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = backed_up(hub, agent, "AB", 1)
    with hub.parts.catalog.write() as session:
        repository_id = find_job(session, job.job_id).repository_id
        path = f"{job.context_id}/{job.job_id}"
        request_removals(session, repository_id, [(job.job_id, path)], hub.parts.now())
    # The note stays: what is older may be what these files build on.
    assert swept(hub) == [job.job_id]
    assert hub.files() == files_of(job)
    assert hub.restored(job.job_id) == raw_bytes("AB")
    assert not delete(hub, job.job_id).pending_job_ids
    assert hub.files() == set()


def test_removal_that_fails_keeps_the_base_of_its_layers_and_holds_no_other_one_up(
    hub: RunningHub, agents: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agents("lab", FakeVm(), FakeVm("other", moref="vm-2", instance_uuid="u2"))
    jobs = [backed_up(hub, agent, "AB", number) for number in range(1, 4)]
    others = [backed_up(hub, agent, "CD", number, vm="other") for number in range(1, 3)]
    remove_job = Repository.remove_job

    def defective(self: Repository, context_id: str, job_id: str) -> None:
        if job_id == jobs[1].job_id:
            raise ZeroDivisionError("a defect")
        remove_job(self, context_id, job_id)

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "remove_job", defective)
        deleted = delete_context(hub, jobs[0].context_id)
        assert list(deleted.pending_job_ids) == [jobs[1].job_id, jobs[0].job_id]
        assert not delete_context(hub, others[0].context_id).pending_job_ids
        assert hub.files() == files_of(*jobs[:2])
        assert swept(hub) == [jobs[1].job_id, jobs[0].job_id]
        assert hub.files() == files_of(*jobs[:2])
    assert swept(hub) == []
    assert hub.files() == set()


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[RunningHub, str], Event]]:
    """Have a repository's folder hang from now on, until the event is set."""
    go_on = Event()
    real = Repository._check_identity

    def hang(hub: RunningHub, name: str) -> Event:
        folder = hub.repository_folder(name)

        def check(self: Repository) -> None:
            if self.path == folder:
                assert go_on.wait(60)
            real(self)

        monkeypatch.setattr(Repository, "_check_identity", check)
        return go_on

    yield hang
    go_on.set()


def made_repository(hub: RunningHub, name: str) -> None:
    folder = hub.repository_folder().with_name(name)
    create_repository(hub.parts, name=name, path=str(folder), default=False)


def test_repository_that_hangs_holds_up_no_other_one(
    hub: RunningHub,
    agents: MakeAgent,
    hanging: Callable[[RunningHub, str], Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_repository(hub, "second")
    agent = agents("lab", FakeVm(), FakeVm("other", moref="vm-2", instance_uuid="u2"))
    stuck = backed_up(hub, agent, "AB", 1)
    fine = backed_up(hub, agent, "CD", 1, vm="other", repository="second")
    go_on = hanging(hub, "default")
    soon = partial(remove_deleted_files, budget_s=0.3)
    monkeypatch.setattr(deletion, "remove_deleted_files", soon)
    # Its note comes before the other one's.
    assert list(delete(hub, stuck.job_id).pending_job_ids) == [stuck.job_id]
    Reaper(hub.parts).sweep()  # it comes back
    assert pending_gauge(hub) == 1
    assert not delete(hub, fine.job_id).pending_job_ids
    assert hub.files("second") == set()
    assert hub.files() == files_of(stuck)
    # A second request waits for the same thread.
    assert soon(hub.parts) == [stuck.job_id]
    assert [one.name for one in threads()].count("folder-removals") == 1
    go_on.set()
    hub.wait_for_files(set())


def test_removal_that_is_asked_for_while_another_one_runs_is_waited_for(
    hub: RunningHub, agents: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agents("lab", FakeVm(), FakeVm("other", moref="vm-2", instance_uuid="u2"))
    first, second = backed_up(hub, agent, "AB", 1), backed_up(hub, agent, "CD", 1, vm="other")
    entered, go_on = Event(), Event()
    remove_job = Repository.remove_job

    def slow(self: Repository, context_id: str, job_id: str) -> None:
        entered.set()
        assert go_on.wait(60)
        remove_job(self, context_id, job_id)

    monkeypatch.setattr(Repository, "remove_job", slow)
    with ThreadPoolExecutor(2) as pool:
        deletions = [pool.submit(delete, hub, first.job_id)]
        assert entered.wait(60)
        deletions.append(pool.submit(delete, hub, second.job_id))
        wait_until(lambda: not job_ids(hub))  # both are deleted
        go_on.set()
        assert [list(one.result(60).pending_job_ids) for one in deletions] == [[], []]
    assert hub.files() == set()


def test_deletion_that_takes_long_is_gone_on_with(
    hub: RunningHub, agent: FakeAgent, hanging: Callable[[RunningHub, str], Event]
) -> None:
    jobs = [backed_up(hub, agent, "AB", number) for number in range(1, 3)]
    go_on = hanging(hub, "default")
    with hub.parts.catalog.write() as session:
        rules.delete_context(session, jobs[0].context_id, now=hub.parts.now())
    both = [jobs[1].job_id, jobs[0].job_id]
    assert remove_deleted_files(hub.parts, both, budget_s=0.1) == both
    go_on.set()
    assert remove_deleted_files(hub.parts, both) == []
    assert hub.files() == set()


def test_late_completion_of_a_deleted_job_leaves_nothing(
    hub: RunningHub, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job fails and is deleted while its facts are about to be written."""
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(job.job_id, [FakeDisk("AB")])
    agent.expect("job_plan")
    agent.upload(job.job_id, 0, "AB")
    writing, go_on = Event(), Event()
    write = Repository.write_job_facts

    def late(self: Repository, *args: Any) -> None:
        writing.set()
        assert go_on.wait(60)
        write(self, *args)

    monkeypatch.setattr(Repository, "write_job_facts", late)
    with ThreadPoolExecutor(2) as pool:
        completing = pool.submit(complete_backup, hub.parts, job.job_id, [])
        assert writing.wait(60)
        assert end_job(hub.parts, job.job_id, states.Event.FAILED, AgentLost("lab"))
        with hub.parts.catalog.write() as session:
            rules.delete_job(session, job.job_id, now=hub.parts.now())
        assert remove_deleted_files(hub.parts, budget_s=0.1) == [job.job_id]
        go_on.set()
        with pytest.raises(JobNotFound):
            completing.result(60)
    assert remove_deleted_files(hub.parts) == []
    assert hub.files() == set()
    with pytest.raises(JobNotFound):
        complete_backup(hub.parts, job.job_id, [])
    assert hub.files() == set()


@dataclass(eq=False)
class OpenUpload:
    """An upload of a job that has ended; it closes its files when asked to, or never."""

    uploads: ActiveUploads
    job_id: str
    obeys: bool
    disk_index: int = 0
    released: Event = field(default_factory=Event)

    def abort(self, error: SendenseError) -> None:
        if self.obeys:
            self.uploads.leave(self)
            self.released.set()

    def expire(self, limit_s: float) -> None: ...

    def cancel_rpc(self) -> None: ...


@pytest.mark.parametrize("obeys", [True, False])
def test_job_with_an_open_upload_is_deleted_once_that_has_closed_its_files(
    hub: RunningHub, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    for wait in ("NOTICE_S", "RELEASE_S"):
        monkeypatch.setattr(active_uploads, wait, 0.05)
    job = failed(hub, agent)
    upload = OpenUpload(hub.parts.uploads, job.job_id, obeys)
    hub.parts.uploads.enter(upload)
    if obeys:
        assert list(delete(hub, job.job_id).job_ids) == [job.job_id]
        assert upload.released.is_set()
    else:
        answer = refusal(lambda: delete(hub, job.job_id))
        assert (answer[1], answer[2]["job_id"]) == ("JOB_NOT_ENDED", job.job_id)
        assert job_ids(hub) == [job.job_id]
