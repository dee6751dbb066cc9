"""What is to be removed is noted with the deletion, and nothing else ever is."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from hub.catalog.delete_jobs import delete_context, delete_job
from hub.catalog.end_job import end_job
from hub.catalog.file_removals import (
    Removal,
    is_needed,
    is_pending,
    pending_count,
    pending_removals,
    removal_done,
    repositories_to_clean,
)
from hub.catalog.models import BackupDisk, BackupJob
from hub.jobs.states import BackupType, Event
from tests.unit.hub.catalog.conftest import NOON, Clock
from tests.unit.hub.catalog.story import PGTEST, Story, frozen


def pending(story: Story, job_ids: list[str] | None = None) -> list[Removal]:
    with story.catalog.read() as session:
        return pending_removals(session, job_ids)


def imported(story: Story, job: BackupJob, paths: list[str]) -> None:
    """Make the job one of an earlier system, with its layers at these places."""
    with story.catalog.write() as session:
        session.execute(
            update(BackupJob).where(BackupJob.id == job.id).values(imported_at=story.now())
        )
        for index, path in enumerate(paths):
            session.execute(
                update(BackupDisk)
                .where(BackupDisk.backup_job_id == job.id, BackupDisk.disk_index == index)
                .values(qcow2_path=path, legacy_id=f"old-{job.id}-{index}", root_digest=None)
            )


def test_files_of_a_failed_job_are_noted_too(story: Story) -> None:
    failed = story.start()
    story.fail(failed)
    with story.catalog.write() as session:
        delete_job(session, failed.id, now=story.now())
    (removal,) = pending(story)
    assert (removal.path, removal.is_folder) == (f"{failed.vm_backup_context_id}/{failed.id}", True)


@pytest.mark.parametrize("event", [Event.FAILED, Event.CANCELLED])
def test_files_of_an_unsuccessful_job_are_noted_with_its_end_if_wanted(
    story: Story, event: Event
) -> None:
    for with_files in (False, True):
        job = story.start()
        with story.catalog.write() as session:
            assert end_job(
                session,
                job.id,
                event,
                reason="BROKEN",
                message="it broke",
                with_files=with_files,
                now=story.now(),
            )
        found = pending(story)
        assert [one.job_id for one in found] == ([job.id] if with_files else [])
    (removal,) = found
    assert (removal.path, removal.is_folder) == (f"{job.vm_backup_context_id}/{job.id}", True)
    with story.catalog.read() as session:
        # Its row tells of no files.
        assert not is_needed(session, removal)
        assert [one.id for one in repositories_to_clean(session)] == [job.repository_id]
    # An end that comes later notes nothing more.
    with story.catalog.write() as session:
        assert not end_job(
            session, job.id, event, reason="R", message="m", with_files=True, now=story.now()
        )
    assert len(pending(story)) == 1


def test_removals_are_of_one_repository_or_of_all(story: Story) -> None:
    here = story.whole(kind=BackupType.FULL)
    there = story.whole(kind=BackupType.FULL, repository="repo-other")
    for job in (here, there):
        with story.catalog.write() as session:
            delete_job(session, job.id, now=story.now())
    with story.catalog.read() as session:
        assert {one.id for one in repositories_to_clean(session)} == {"repo-default", "repo-other"}
        assert [one.id for one in repositories_to_clean(session, [there.id])] == ["repo-other"]
        (removal,) = pending_removals(session, repository_id="repo-other")
        assert removal.job_id == there.id
        assert pending_removals(session, [here.id], repository_id="repo-other") == []


def test_removals_that_may_build_on_one_another_say_the_same(story: Story) -> None:
    native = [story.whole(kind=BackupType.FULL) for _ in range(2)]
    other = story.whole(vm=replace(PGTEST, instance_uuid="u2", name="other"))
    old = story.whole(vm=replace(PGTEST, instance_uuid="u3", name="old"))
    imported(story, old, ["old/disk-0/backup-1.qcow2"])
    for job in (*native, other, old):
        with story.catalog.write() as session:
            delete_job(session, job.id, cascade=True, now=story.now())
    assert [one.chains for one in pending(story)] == [
        native[0].vm_backup_context_id,
        native[1].vm_backup_context_id,
        other.vm_backup_context_id,
        "",
    ]


def test_removals_are_asked_for_by_job_and_struck_out_one_by_one(story: Story) -> None:
    jobs = [story.whole(kind=BackupType.FULL) for _ in range(3)]
    with story.catalog.write() as session:
        delete_context(session, jobs[0].vm_backup_context_id, now=story.now())
    newest_first = [job.id for job in reversed(jobs)]
    assert [removal.job_id for removal in pending(story)] == newest_first
    (removal,) = pending(story, [jobs[1].id])
    assert removal.job_id == jobs[1].id
    with story.catalog.write() as session:
        assert is_pending(session, removal)
        assert pending_count(session) == 3
        removal_done(session, removal)
    with story.catalog.read() as session:
        assert not is_pending(session, removal)
        assert pending_count(session) == 2
    assert [one.job_id for one in pending(story)] == [jobs[2].id, jobs[0].id]


def test_imported_job_has_its_layer_files_noted_and_no_folder(story: Story) -> None:
    job = story.whole(frozen(0), frozen(1))
    native = story.whole(kind=BackupType.FULL)
    paths = ["old/pgtest1/disk-0/backup-1.qcow2", "old/pgtest1/disk-1/backup-1.qcow2"]
    imported(story, job, paths)
    with story.catalog.write() as session:
        delete_context(session, job.vm_backup_context_id, now=story.now())
    assert [(one.job_id, one.path, one.is_folder) for one in pending(story)] == [
        (native.id, f"{native.vm_backup_context_id}/{native.id}", True),
        (job.id, paths[0], False),
        (job.id, paths[1], False),
    ]


def test_files_that_rows_tell_of_are_needed(story: Story) -> None:
    shared = "old/pgtest1/disk-0/backup-1.qcow2"
    gone = story.whole(kind=BackupType.FULL)
    stays = story.whole(kind=BackupType.FULL)
    elsewhere = story.whole(kind=BackupType.FULL, repository="repo-other")
    for job in (gone, stays, elsewhere):
        imported(story, job, [shared])
    with story.catalog.write() as session:
        delete_job(session, gone.id, now=story.now())
    (removal,) = pending(story)
    with story.catalog.read() as session:
        assert is_needed(session, removal)
    with story.catalog.write() as session:
        delete_job(session, stays.id, now=story.now())
    with story.catalog.read() as session:
        assert not is_needed(session, removal)
        # A job that has the id again keeps its files.
        taken = Removal(removal.removal_id, removal.repository, elsewhere.id, removal.path)
        assert is_needed(session, taken)


@pytest.mark.parametrize("removed", [False, True])
def test_id_of_a_deleted_job_is_free_once_its_files_are_gone(
    story: Story, clock: Clock, removed: bool
) -> None:
    first = story.whole()
    clock.advance(60)
    with story.catalog.write() as session:
        delete_job(session, first.id, now=story.now())
    if removed:
        with story.catalog.write() as session:
            for removal in pending_removals(session):
                removal_done(session, removal)
    # The clock went back: the next job would have the same name.
    clock.at = NOON + timedelta(milliseconds=1)
    second = story.start()
    assert (second.id == first.id) is removed
    assert second.id in (first.id, f"{first.id}-2")
