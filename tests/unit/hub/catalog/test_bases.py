"""Which row an increment builds on (reference: failures 1 to 9, 14, 15)."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from hub.catalog.bases import FrozenDisk, base_candidates
from hub.catalog.models import BackupDisk, BackupJob
from hub.jobs.states import BackupType, Event
from tests.unit.hub.catalog.story import GIB, PGTEST, Story, frozen


def reasons(story: Story, job_disks: list[FrozenDisk], **more: object) -> list[str]:
    """Warnings of a job that is opened now with these disks."""
    job = story.start(**more)  # type: ignore[arg-type]
    story.open(job, *job_disks)
    return [one["message"] for one in story.job(job).warnings]


def test_first_backup_is_full_without_a_warning(story: Story) -> None:
    job = story.whole(frozen(0), frozen(1))
    assert [disk.base_disk_id for disk in job.disks] == [None, None]
    assert job.backup_type is BackupType.FULL
    assert job.warnings == []


def test_each_disk_builds_on_its_own_row_of_the_last_job(story: Story) -> None:
    story.whole(frozen(0), frozen(1))
    second = story.whole(frozen(0, change_id="52 aa/2"), frozen(1, change_id="52 aa/2"))
    third = story.whole(frozen(0, change_id="52 aa/3"), frozen(1, change_id="52 aa/3"))
    assert [d.base_disk_id for d in third.disks] == [d.id for d in second.disks]
    assert [d.base.disk_change_id for d in third.disks if d.base] == ["52 aa/2"] * 2
    assert third.backup_type is BackupType.INCREMENTAL
    assert third.warnings == []


def test_requested_full_has_no_base(story: Story) -> None:
    story.whole()
    job = story.whole(kind=BackupType.FULL)
    assert job.disks[0].base_disk_id is None
    assert job.disks[0].backup_type is job.backup_type is BackupType.FULL
    assert job.warnings == []


def test_asked_increment_without_a_backup_becomes_full_and_says_so(story: Story) -> None:
    job = story.whole(kind=BackupType.INCREMENTAL)
    assert job.backup_type is BackupType.FULL
    assert [one["code"] for one in job.warnings] == ["FULL_INSTEAD_OF_INCREMENTAL"]


@pytest.mark.parametrize("event", [Event.FAILED, Event.CANCELLED])
def test_failed_job_is_never_a_base(story: Story, event: Event) -> None:
    good = story.whole()
    bad = story.start()
    story.open(bad, frozen(change_id="52 aa/2"))
    story.seal(bad, 0)
    story.fail(bad, event)
    assert story.whole(frozen(change_id="52 aa/3")).disks[0].base_disk_id == good.disks[0].id


def test_disk_is_known_by_uuid_and_key_when_the_order_changed(story: Story) -> None:
    first = story.whole(frozen(0), frozen(1))
    zero, one = frozen(0), frozen(1)
    second = story.whole(replace(one, disk_index=0), replace(zero, disk_index=1))
    assert [d.base_disk_id for d in second.disks] == [first.disks[1].id, first.disks[0].id]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"disk_uuid": "another"}, "does not have this disk"),
        ({"vmware_disk_key": 2016}, "does not have this disk"),
        ({"capacity_bytes": 2 * GIB}, "size changed"),
        ({"change_id": ""}, "no change id"),
        ({"change_id": "77 bb/2"}, "was reset"),
        ({"change_id": "52 aa/9"}, "went back"),
        ({"disk_uuid": ""}, "no uuid"),
    ],
    ids=["uuid", "key", "grown", "untracked", "reset", "reverted", "no-uuid"],
)
def test_disk_without_a_usable_base_is_full_and_says_why(
    story: Story, changed: dict[str, object], reason: str
) -> None:
    story.whole(frozen(0), frozen(1, change_id="52 aa/10"))
    job = story.whole(frozen(0), frozen(1, **{"change_id": "52 aa/11"} | changed))
    assert [d.backup_type for d in job.disks] == [BackupType.INCREMENTAL, BackupType.FULL]
    assert job.backup_type is BackupType.INCREMENTAL
    (warning,) = job.warnings
    assert warning["code"] == "FULL_INSTEAD_OF_INCREMENTAL"
    assert warning["disk_label"] == "Hard disk 2"
    assert reason in warning["message"]


def test_base_without_a_change_id_is_no_base(story: Story) -> None:
    story.whole(frozen(change_id=""))
    (message,) = reasons(story, [frozen()])
    assert "no change id" in message


def test_job_made_while_the_vm_had_snapshots_is_no_base(story: Story) -> None:
    first = story.whole(frozen(0), frozen(1))
    # Its own base was made without them, so it is an increment all the same.
    with_snapshots = story.whole(
        frozen(0, change_id="52 aa/2"),
        frozen(1, change_id="52 aa/2"),
        other_snapshots=["before upgrade", "gold"],
    )
    assert [d.base_disk_id for d in with_snapshots.disks] == [d.id for d in first.disks]
    after = story.whole(frozen(0, change_id="52 aa/3"), frozen(1, change_id="52 aa/3"))
    assert after.backup_type is BackupType.FULL
    assert [d.base_disk_id for d in after.disks] == [None, None]
    assert [one["code"] for one in after.warnings] == ["FULL_INSTEAD_OF_INCREMENTAL"] * 2
    assert all("'before upgrade', 'gold'; a revert" in one["message"] for one in after.warnings)
    # The full, made without snapshots, is a base again.
    again = story.whole(frozen(0, change_id="52 aa/4"), frozen(1, change_id="52 aa/4"))
    assert [d.base_disk_id for d in again.disks] == [d.id for d in after.disks]


@pytest.mark.parametrize(
    ("before", "now"),
    [("52 aa/7", "52 aa/7"), ("52 aa/9", "52 aa/10"), ("52 aa", "52 aa"), ("52 aa/x", "52 aa/1")],
)
def test_change_id_that_did_not_go_back_has_a_base(story: Story, before: str, now: str) -> None:
    first = story.whole(frozen(change_id=before))
    assert story.whole(frozen(change_id=now)).disks[0].base_disk_id == first.disks[0].id


def test_base_whose_layer_cannot_be_built_on_is_no_base(story: Story) -> None:
    first = story.whole()
    job = story.start()
    asked: list[int] = []

    def gone(row: BackupDisk) -> str:
        asked.append(row.id)
        return "its layer is gone"

    (disk,) = story.open(job, layer_problem=gone)
    assert disk.base_disk_id is None
    assert asked == [first.disks[0].id]
    assert "its layer is gone" in story.job(job).warnings[0]["message"]


def test_other_sites_and_repositories_have_no_say(story: Story) -> None:
    story.whole(vm=replace(PGTEST, site="dr"))
    story.whole(repository="repo-other")
    job = story.whole()
    assert job.disks[0].base_disk_id is None
    assert job.warnings == []


def test_disk_that_came_back_builds_on_nothing(story: Story) -> None:
    story.whole(frozen(0), frozen(1))
    story.whole(frozen(0))
    job = story.whole(frozen(0), frozen(1))
    assert [d.base_disk_id is None for d in job.disks] == [False, True]


def test_full_instead_clears_the_base_before_the_layer_exists(story: Story) -> None:
    story.whole()
    job = story.start()
    assert story.open(job)[0].base_disk_id is not None
    story.seal(job, 0, full_reason="the host forgot")
    after = story.job(job)
    assert after.disks[0].base_disk_id is None
    assert after.disks[0].backup_type is after.backup_type is BackupType.FULL
    assert "the host forgot" in after.warnings[0]["message"]


def test_imported_job_is_never_a_base_and_the_warning_says_why(story: Story) -> None:
    imported = story.whole()
    with story.catalog.write() as session:
        session.execute(
            update(BackupJob).where(BackupJob.id == imported.id).values(imported_at=story.now())
        )
        session.execute(update(BackupDisk).values(legacy_id="old-1", root_digest=None))
        assert base_candidates(session, imported.vm_backup_context_id) == []
    job = story.start()
    (disk,) = story.open(job)
    assert (disk.base_disk_id, disk.backup_type) == (None, BackupType.FULL)
    (warning,) = story.job(job).warnings
    assert warning["code"] == "FULL_INSTEAD_OF_INCREMENTAL"
    assert f"{imported.id}, was imported from an earlier system" in warning["message"]
    story.seal(job, 0)
    story.complete(job)
    # From then on, increments as ever.
    assert story.whole().disks[0].base_disk_id == disk.id
