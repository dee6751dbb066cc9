"""Success is reached only through the completion transaction (failures 6, 16, 24)."""

from dataclasses import replace

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from hub.catalog import upload_disk
from hub.catalog.end_job import end_job
from hub.catalog.models import BackupDisk
from hub.catalog.upload_disk import SealedFacts, break_disk, seal_disk
from hub.errors import (
    DiskNotUploadable,
    JobEnded,
    NoDisks,
    ProtocolViolation,
    UploadTruncated,
)
from hub.jobs.states import TRANSITIONS, BackupType, Event, Status
from tests.unit.hub.catalog.conftest import Clock
from tests.unit.hub.catalog.story import Story, frozen


def test_only_one_way_leads_to_completed() -> None:
    assert [key for key, after in TRANSITIONS.items() if after is Status.COMPLETED] == [
        (Status.RUNNING, Event.ALL_DISKS_SEALED)
    ]


def test_completion_moves_disks_job_and_context_together(story: Story, clock: Clock) -> None:
    job = story.start()
    story.open(job, frozen(0), frozen(1))
    story.seal(job, 0)
    story.seal(job, 1)
    clock.advance(4 * 3600)  # no time window decides what belongs together
    assert story.complete(job)
    done = story.job(job)
    assert [disk.status for disk in done.disks] == [Status.COMPLETED] * 2
    assert {disk.completed_at for disk in done.disks} == {done.completed_at} == {clock.at}
    assert (done.bytes_planned, done.bytes_read, done.bytes_transferred, done.bytes_stored) == (
        8,
        6,
        4,
        2,
    )
    context = done.context
    assert (context.total_backups_run, context.successful_backups, context.failed_backups) == (
        1,
        1,
        0,
    )
    assert (context.last_backup_id, context.last_backup_type, context.last_backup_at) == (
        job.id,
        BackupType.FULL,
        clock.at,
    )


def test_job_is_not_completed_while_a_disk_is_missing(story: Story) -> None:
    job = story.start()
    story.open(job, frozen(0), frozen(1))
    story.seal(job, 0)
    with pytest.raises(ProtocolViolation, match=r"\[1\]"):
        story.complete(job)
    after = story.job(job)
    assert after.status is Status.RUNNING
    assert {disk.status for disk in after.disks} == {Status.RUNNING, Status.PENDING}
    assert after.context.successful_backups == 0
    assert after.context.last_backup_id is None


def test_upload_begun_and_sealed_twice_changes_nothing(story: Story) -> None:
    job = story.start()
    (disk,) = story.open(job)
    for _ in range(2):
        assert story.upload(job).status is Status.RUNNING
    facts = SealedFacts("c/j/disk-0.qcow2", "ab" * 32, 4, 4, 2, 1, 0, 0)
    for _ in range(2):
        with story.catalog.write() as session:
            seal_disk(session, disk.id, facts, story.now())
    with story.catalog.write() as session, pytest.raises(JobEnded):
        seal_disk(session, disk.id, replace(facts, root_digest="cd" * 32), story.now())
    assert story.job(job).disks[0].root_digest == "ab" * 32


def test_upload_of_a_disk_whose_job_just_ended_is_refused(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = story.start()
    story.open(job)
    real = upload_disk.find_disk

    def outdated(session: Session, job_id: str, disk_index: int) -> BackupDisk:
        found = real(session, job_id, disk_index)
        # As another writer of MariaDB commits it meanwhile.
        assert end_job(
            session, job.id, Event.FAILED, reason="BROKEN", message="it broke", now=story.now()
        )
        return found

    monkeypatch.setattr(upload_disk, "find_disk", outdated)
    with story.catalog.write() as session:
        with pytest.raises(JobEnded):
            story.begin(session, job)
        session.commit()
    assert story.job(job).disks[0].status is Status.FAILED


def test_words_of_an_end_are_clipped_to_what_a_row_takes(story: Story) -> None:
    job = story.start()
    with story.catalog.write() as session:
        end_job(session, job.id, Event.FAILED, reason="R", message="x" * 70_000, now=story.now())
    assert story.job(job).error_message == "x" * 4096


def test_pending_job_cannot_complete(story: Story) -> None:
    with pytest.raises(ProtocolViolation, match="never opened"):
        story.complete(story.start())


def test_completion_changes_nothing_when_repeated(story: Story, clock: Clock) -> None:
    job = story.whole()
    clock.advance(60)
    assert not story.complete(job)
    again = story.job(job)
    assert again.completed_at == job.completed_at
    assert again.context.successful_backups == 1


def test_failed_job_never_completes(story: Story) -> None:
    job = story.start()
    story.open(job)
    story.seal(job, 0)
    story.fail(job)
    with pytest.raises(JobEnded):
        story.complete(job)
    assert story.job(job).status is Status.FAILED


def test_completed_job_never_fails(story: Story) -> None:
    job = story.whole()
    assert not story.fail(job)
    after = story.job(job)
    assert after.status is Status.COMPLETED
    assert after.context.failed_backups == 0


def test_completion_is_all_or_nothing_when_a_row_is_not_as_expected(story: Story) -> None:
    job = story.start()
    story.open(job, frozen(0), frozen(1))
    story.seal(job, 0)
    story.seal(job, 1)
    with story.catalog.write() as session:
        session.execute(
            update(BackupDisk).where(BackupDisk.disk_index == 1).values(root_digest=None)
        )
    with pytest.raises(ProtocolViolation):
        story.complete(job)
    assert {disk.status for disk in story.job(job).disks} == {Status.RUNNING}


@pytest.mark.parametrize(
    ("event", "status", "failed"),
    [(Event.FAILED, Status.FAILED, 1), (Event.CANCELLED, Status.CANCELLED, 0)],
)
def test_end_reaches_every_disk_and_is_counted_once(
    story: Story, event: Event, status: Status, failed: int
) -> None:
    job = story.start()
    story.open(job, frozen(0), frozen(1))
    story.seal(job, 0)
    assert story.fail(job, event)
    assert not story.fail(job, event)
    after = story.job(job)
    assert after.status is status
    assert {disk.status for disk in after.disks} == {status}
    assert {disk.qcow2_path for disk in after.disks} == {None}
    assert (after.error_reason, after.error_message) == ("BROKEN", "it broke")
    assert after.context.failed_backups == failed
    assert after.context.last_backup_id is None


def test_opening_answers_the_same_when_repeated(story: Story) -> None:
    job = story.start()
    first = [disk.id for disk in story.open(job, frozen(0), frozen(1))]
    assert [disk.id for disk in story.open(job, frozen(0), frozen(1))] == first


def test_job_that_ended_is_not_opened(story: Story) -> None:
    job = story.start()
    story.fail(job)
    with pytest.raises(JobEnded):
        story.open(job)
    assert story.job(job).disks == []


@pytest.mark.parametrize(
    "disks",
    [
        [frozen(0), frozen(0, vmware_disk_key=2001)],
        [frozen(0), frozen(1, vmware_disk_key=2000)],
        [frozen(-1)],
        [frozen(0, capacity_bytes=0)],
    ],
    ids=["same-index", "same-key", "negative", "empty"],
)
def test_impossible_disks_are_refused(story: Story, disks: list[object]) -> None:
    job = story.start()
    with pytest.raises(ProtocolViolation):
        story.open(job, *disks)  # type: ignore[arg-type]
    assert story.job(job).status is Status.PENDING


def test_job_without_disks_is_refused(story: Story) -> None:
    from hub.catalog.open_job import open_job

    job = story.start()
    with pytest.raises(NoDisks), story.catalog.write() as session:
        open_job(
            session,
            job.id,
            disks=[],
            snapshot="",
            other_snapshots=[],
            consistency=None,
            warnings=[],
            layer_problem=lambda row: "",
            now=story.now(),
        )


def test_disk_that_failed_takes_no_upload(story: Story) -> None:
    job = story.start()
    story.open(job)
    disk = story.upload(job)
    with story.catalog.write() as session:
        assert break_disk(session, disk.id, UploadTruncated(job.id, 0, "its totals are wrong"))
    with pytest.raises(DiskNotUploadable):
        story.upload(job)
