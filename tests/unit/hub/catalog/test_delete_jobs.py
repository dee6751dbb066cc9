"""Deleting jobs and contexts: no restore point ever loses its base."""

import threading
from dataclasses import replace

import pytest

from hub.catalog.delete_jobs import Deletion, delete_context, delete_job
from hub.catalog.file_removals import pending_removals
from hub.catalog.lists import list_disks
from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext
from hub.catalog.queries import restorable_chain
from hub.errors import ContextNotFound, JobHasDependants, JobNotEnded, JobNotFound
from hub.jobs.states import BackupType, Event
from tests.unit.hub.catalog.conftest import Clock
from tests.unit.hub.catalog.story import PGTEST, Story, frozen


def deleted(story: Story, job: BackupJob, *, cascade: bool = False) -> list[str]:
    with story.catalog.write() as session:
        return delete_job(session, job.id, cascade=cascade, now=story.now()).job_ids


def removals(story: Story) -> list[tuple[str, str, str]]:
    """(repository, job, path) of what is to be removed, in order."""
    with story.catalog.read() as session:
        return [(one.repository.id, one.job_id, one.path) for one in pending_removals(session)]


def job_ids(story: Story) -> set[str]:
    with story.catalog.read() as session:
        return {job.id for job in session.query(BackupJob)}


def test_newest_job_goes_and_the_context_tells_of_the_one_before(
    story: Story, clock: Clock
) -> None:
    full = story.whole(frozen(0), frozen(1))
    clock.advance(60)
    increment = story.whole(frozen(0), frozen(1))
    assert story.context(full).last_backup_id == increment.id
    with story.catalog.write() as session:
        deletion = delete_job(session, increment.id, now=story.now())
    assert deletion == Deletion([increment.id], bytes_stored=2)
    assert removals(story) == [
        ("repo-default", increment.id, f"{full.vm_backup_context_id}/{increment.id}")
    ]
    assert job_ids(story) == {full.id}
    with story.catalog.read() as session:
        assert session.query(BackupDisk).count() == 2
    context = story.context(full)
    assert (context.last_backup_id, context.last_backup_type, context.last_backup_at) == (
        full.id,
        BackupType.FULL,
        full.completed_at,
    )
    # What happened, happened; and the next run has a number of its own.
    assert (context.total_backups_run, context.successful_backups) == (2, 2)
    third = story.whole()
    assert third.run_number == 3
    assert third.disks[0].base_disk_id == full.disks[0].id


def test_last_job_goes_and_the_context_stays_without_a_backup(story: Story) -> None:
    only = story.whole()
    assert deleted(story, only) == [only.id]
    with story.catalog.read() as session:
        context = session.query(VmBackupContext).one()
    assert (context.last_backup_id, context.last_backup_type, context.last_backup_at) == (None,) * 3
    after = story.whole()
    assert after.vm_backup_context_id == only.vm_backup_context_id
    assert after.backup_type is BackupType.FULL


def test_job_that_others_build_on_is_refused_with_their_names(story: Story) -> None:
    jobs = [story.whole() for _ in range(3)]
    with pytest.raises(JobHasDependants) as refused:
        deleted(story, jobs[0])
    assert refused.value.dependants == [jobs[1].id, jobs[2].id]
    assert f"{jobs[1].id}, {jobs[2].id}" in str(refused.value)
    assert refused.value.facts() == {
        "job_id": jobs[0].id,
        "dependants": f"{jobs[1].id},{jobs[2].id}",
    }
    with story.catalog.read() as session:
        assert len(restorable_chain(session, jobs[2].id, 0)) == 3


def test_cascade_takes_along_what_builds_on_the_job_and_nothing_else(story: Story) -> None:
    old = [story.whole() for _ in range(2)]
    chain = [story.whole(kind=BackupType.FULL), story.whole(), story.whole()]
    other = story.whole(vm=replace(PGTEST, instance_uuid="uuid-2"))
    assert deleted(story, chain[1], cascade=True) == [chain[2].id, chain[1].id]
    assert job_ids(story) == {old[0].id, old[1].id, chain[0].id, other.id}
    assert story.context(chain[0]).last_backup_id == chain[0].id
    with story.catalog.read() as session:
        assert len(restorable_chain(session, old[1].id, 0)) == 2


def test_job_that_one_disk_of_another_builds_on_has_a_dependant(story: Story) -> None:
    first = story.whole(frozen(0), frozen(1))
    # Disk 0 alone goes on; disk 1 starts anew, and its full needs nothing.
    second = story.whole(frozen(0), frozen(1, change_id="77 bb/1"))
    third = story.whole(frozen(1, change_id="77 bb/2"))
    with pytest.raises(JobHasDependants) as refused:
        deleted(story, first)
    assert refused.value.dependants == [second.id, third.id]
    assert deleted(story, first, cascade=True) == [third.id, second.id, first.id]


@pytest.mark.parametrize("event", [Event.FAILED, Event.CANCELLED])
def test_job_that_only_failed_ones_built_on_goes_alone(story: Story, event: Event) -> None:
    base = story.whole()
    failed = story.start()
    story.open(failed)
    story.fail(failed, event)
    assert story.job(failed).disks[0].base_disk_id == base.disks[0].id
    assert deleted(story, base) == [base.id]
    assert story.job(failed).disks[0].base_disk_id is None
    assert deleted(story, failed) == [failed.id]


@pytest.mark.parametrize("opened", [False, True], ids=["pending", "running"])
@pytest.mark.parametrize("cascade", [False, True])
def test_live_job_is_not_deleted(story: Story, opened: bool, cascade: bool) -> None:
    job = story.start()
    if opened:
        story.open(job)
    with pytest.raises(JobNotEnded, match=job.id):
        deleted(story, job, cascade=cascade)
    with pytest.raises(JobNotEnded), story.catalog.write() as session:
        delete_context(session, job.vm_backup_context_id, now=story.now())
    assert job_ids(story) == {job.id}


def test_base_of_a_running_job_stays_also_with_cascade(story: Story) -> None:
    base = story.whole()
    running = story.start()
    story.open(running)
    with pytest.raises(JobHasDependants):
        deleted(story, base)
    with pytest.raises(JobNotEnded, match=running.id):
        deleted(story, base, cascade=True)
    story.seal(running, 0)
    assert story.complete(running)
    with story.catalog.read() as session:
        assert len(restorable_chain(session, running.id, 0)) == 2


def test_job_that_a_pending_one_could_build_on_goes_and_the_next_is_full(story: Story) -> None:
    base = story.whole()
    pending = story.start()
    assert deleted(story, base) == [base.id]
    (disk,) = story.open(pending)
    assert disk.base_disk_id is None


def test_context_goes_with_all_its_jobs_newest_first(story: Story) -> None:
    jobs = [story.whole(), story.whole()]
    failed = story.start()
    story.fail(failed)
    other = story.whole(repository="repo-other")
    with story.catalog.write() as session:
        deletion = delete_context(session, failed.vm_backup_context_id, now=story.now())
    assert deletion == Deletion([failed.id, jobs[1].id, jobs[0].id], bytes_stored=2)
    assert removals(story) == [
        ("repo-default", job_id, f"{failed.vm_backup_context_id}/{job_id}")
        for job_id in deletion.job_ids
    ]
    assert job_ids(story) == {other.id}
    with story.catalog.read() as session:
        left = list_disks(session, context_id=other.vm_backup_context_id)[0]
        assert [disk.id for disk in left] == [other.disks[0].id]
        assert session.query(BackupDisk).count() == 1
        assert session.query(VmBackupContext).count() == 1


def test_what_does_not_exist_is_not_deleted(story: Story) -> None:
    with pytest.raises(JobNotFound), story.catalog.write() as session:
        delete_job(session, "nobody", now=story.now())
    with pytest.raises(ContextNotFound), story.catalog.write() as session:
        delete_context(session, "nobody", now=story.now())


def test_deletion_that_is_not_committed_changes_nothing(story: Story) -> None:
    jobs = [story.whole() for _ in range(3)]
    with pytest.raises(ZeroDivisionError), story.catalog.write() as session:
        assert len(delete_job(session, jobs[0].id, cascade=True, now=story.now()).job_ids) == 3
        raise ZeroDivisionError
    assert job_ids(story) == {job.id for job in jobs}
    assert story.context(jobs[0]).last_backup_id == jobs[2].id
    with story.catalog.read() as session:
        assert len(restorable_chain(session, jobs[2].id, 0)) == 3


def test_job_that_opens_while_its_base_is_deleted_waits_and_is_full(story: Story) -> None:
    base = story.whole()
    pending = story.start()
    opening = threading.Thread(target=story.open, args=(pending,))
    with story.catalog.write() as session:
        delete_job(session, base.id, now=story.now())
        opening.start()
        # It cannot end before the lock is given back.
        opening.join(0.3)
        assert opening.is_alive()
    opening.join(30)
    assert [disk.base_disk_id for disk in story.job(pending).disks] == [None]
    assert job_ids(story) == {pending.id}


def test_base_that_is_deleted_while_a_job_chooses_it_is_refused(story: Story) -> None:
    base = story.whole()
    pending = story.start()
    refused: list[JobHasDependants] = []

    def delete() -> None:
        with pytest.raises(JobHasDependants) as error:
            deleted(story, base)
        refused.append(error.value)

    deleting = threading.Thread(target=delete)

    def chosen(row: BackupDisk) -> str:
        assert row.id == base.disks[0].id
        deleting.start()
        deleting.join(0.3)
        assert deleting.is_alive()
        return ""

    story.open(pending, layer_problem=chosen)
    deleting.join(30)
    assert [error.dependants for error in refused] == [[pending.id]]
    assert story.job(pending).disks[0].base_disk_id == base.disks[0].id
