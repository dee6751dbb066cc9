"""Deletion over gRPC: rows first, then files; what is left is a whole chain."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from threading import Event
from types import SimpleNamespace

import grpc
import pytest

from hub.catalog.file_removals import pending_removals, request_removals
from hub.catalog.queries import find_job
from hub.jobs import active_uploads, removals
from hub.jobs.active_uploads import ActiveUploads
from hub.jobs.reaper import Reaper
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
    reaper = Reaper(hub.parts)
    reaper.sweep()
    assert hub.parts.metrics.registry.get_sample_value("sendense_hub_removals_pending") == 2
    assert list(folder.iterdir()) == []
    folder.rmdir()
    away.rename(folder)
    assert hub.files() == files_of(*jobs)
    reaper.sweep()
    assert hub.files() == set()
    assert hub.parts.metrics.registry.get_sample_value("sendense_hub_removals_pending") == 0
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
    Reaper(hub.parts).sweep()
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
    Reaper(hub.parts).sweep()
    assert hub.files() == files_of(job)
    assert hub.restored(job.job_id) == raw_bytes("AB")
    with hub.parts.catalog.read() as session:
        assert pending_removals(session) == []


def test_removal_that_fails_unexpectedly_holds_no_other_one_up(
    hub: RunningHub, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [backed_up(hub, agent, "AB", number) for number in range(1, 3)]
    remove_job = Repository.remove_job

    def defective(self: Repository, context_id: str, job_id: str) -> None:
        if job_id == jobs[1].job_id:
            raise ZeroDivisionError("a defect")
        remove_job(self, context_id, job_id)

    monkeypatch.setattr(Repository, "remove_job", defective)
    deleted = delete_context(hub, jobs[0].context_id)
    assert list(deleted.pending_job_ids) == [jobs[1].job_id]
    assert hub.files() == files_of(jobs[1])
    monkeypatch.undo()
    Reaper(hub.parts).sweep()
    assert hub.files() == set()


def test_deletion_that_takes_long_is_gone_on_with_by_the_reaper(
    hub: RunningHub, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [backed_up(hub, agent, "AB", number) for number in range(1, 3)]
    with monkeypatch.context() as patch:
        patch.setattr(removals, "time", SimpleNamespace(monotonic=count(step=15.0).__next__))
        deleted = delete_context(hub, jobs[0].context_id)
    # 20 seconds are enough for the first.
    assert list(deleted.pending_job_ids) == [jobs[0].job_id]
    assert hub.files() == files_of(jobs[0])
    Reaper(hub.parts).sweep()
    assert hub.files() == set()


@dataclass
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
