"""Which row an increment builds on, and how it is read (reference: failures 1, 3 to 9, 14, 15)."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from hub.catalog.bases import base_candidates
from hub.catalog.check import check_rows
from hub.catalog.models import BackupDisk, BackupJob
from hub.jobs.states import BackupType, Event, ReadMethod
from tests.unit.hub.catalog.story import GIB, PGTEST, Story, frozen


def test_first_backup_is_full_without_a_warning(story: Story) -> None:
    job = story.whole(frozen(0), frozen(1))
    assert [disk.base_disk_id for disk in job.disks] == [None, None]
    assert [disk.read_method for disk in job.disks] == [ReadMethod.ALLOCATED] * 2
    assert [disk.read_reason for disk in job.disks] == [None, None]
    assert job.backup_type is BackupType.FULL
    assert job.warnings == []


def test_each_disk_builds_on_its_own_row_of_the_last_job(story: Story) -> None:
    story.whole(frozen(0), frozen(1))
    second = story.whole(frozen(0, change_id="52 aa/2"), frozen(1, change_id="52 aa/2"))
    third = story.whole(frozen(0, change_id="52 aa/3"), frozen(1, change_id="52 aa/3"))
    assert [d.base_disk_id for d in third.disks] == [d.id for d in second.disks]
    assert [d.base.disk_change_id for d in third.disks if d.base] == ["52 aa/2"] * 2
    assert third.backup_type is BackupType.INCREMENTAL
    assert [d.read_method for d in third.disks] == [ReadMethod.CHANGED] * 2
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
    ("changed", "reason", "gone"),
    [
        ({"disk_uuid": "another"}, "does not have this disk", True),
        ({"vmware_disk_key": 2016}, "does not have this disk", True),
        ({"capacity_bytes": GIB // 2}, "shrank from 1073741824 to 536870912 bytes", False),
        ({"disk_uuid": ""}, "no uuid", True),
    ],
    ids=["uuid", "key", "shrunk", "no-uuid"],
)
def test_disk_without_a_usable_base_is_full_and_says_why(
    story: Story, changed: dict[str, object], reason: str, gone: bool
) -> None:
    """Failures 4, 7, 9."""
    story.whole(frozen(0), frozen(1, change_id="52 aa/10"))
    job = story.whole(frozen(0), frozen(1, **{"change_id": "52 aa/11"} | changed))
    assert [d.backup_type for d in job.disks] == [BackupType.INCREMENTAL, BackupType.FULL]
    assert [d.read_method for d in job.disks] == [ReadMethod.CHANGED, ReadMethod.ALLOCATED]
    assert job.backup_type is BackupType.INCREMENTAL
    warning, *others = job.warnings
    assert warning["code"] == "FULL_INSTEAD_OF_INCREMENTAL"
    assert warning["disk_label"] == "Hard disk 2"
    assert reason in warning["message"]
    assert reason in (job.disks[1].read_reason or "")
    assert [one["code"] for one in others] == (["DISK_GONE"] if gone else [])


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        ({}, {"capacity_bytes": 2 * GIB}, "grew from 1073741824 to 2147483648 bytes"),
        ({}, {"change_id": ""}, "no change id"),
        ({"change_id": ""}, {}, "last backup has no change id"),
        ({}, {"change_id": "77 bb/2"}, "was reset"),
        ({}, {"change_id": "52 aa/9"}, "went back"),
    ],
    ids=["grown", "untracked", "not-tracked-then", "reset", "reverted"],
)
def test_disk_whose_changes_cannot_be_asked_for_is_compared_and_says_why(
    story: Story, before: dict[str, object], now: dict[str, object], reason: str
) -> None:
    """Failures 4, 8, 14, 15."""
    first = story.whole(frozen(0), frozen(1, **{"change_id": "52 aa/10"} | before))
    job = story.whole(frozen(0), frozen(1, **{"change_id": "52 aa/11"} | now))
    assert [d.base_disk_id for d in job.disks] == [d.id for d in first.disks]
    assert [d.read_method for d in job.disks] == [ReadMethod.CHANGED, ReadMethod.COMPARED]
    assert [d.backup_type for d in job.disks] == [BackupType.INCREMENTAL] * 2
    (warning,) = job.warnings
    assert warning["code"] == "COMPARED_INSTEAD_OF_TRACKING"
    assert warning["disk_label"] == "Hard disk 2"
    assert warning["message"].startswith("Hard disk 2 is read in full and compared with the last")
    assert warning["message"].endswith(job.disks[1].read_reason or "?")
    assert reason in warning["message"]
    assert job.disks[0].read_reason is None


def test_grown_disk_has_the_new_size_and_is_a_base_at_once(story: Story) -> None:
    story.whole()
    grown = story.whole(frozen(capacity_bytes=2 * GIB, change_id="52 aa/2"))
    assert grown.disks[0].capacity_bytes == 2 * GIB
    after = story.whole(frozen(capacity_bytes=2 * GIB, change_id="52 aa/3"))
    assert after.disks[0].base_disk_id == grown.disks[0].id
    assert after.disks[0].read_method is ReadMethod.CHANGED
    assert check_rows(story.catalog)[1] == []


def test_job_made_while_the_vm_had_snapshots_is_a_base_to_compare_with(story: Story) -> None:
    """Failure 15."""
    first = story.whole(frozen(0), frozen(1))
    with_snapshots = story.whole(
        frozen(0, change_id="52 aa/2"),
        frozen(1, change_id="52 aa/2"),
        other_snapshots=["before upgrade", "gold"],
    )
    assert [d.base_disk_id for d in with_snapshots.disks] == [d.id for d in first.disks]
    # They were made since its base, and a revert to one may have emptied the tracking.
    assert {d.read_method for d in with_snapshots.disks} == {ReadMethod.COMPARED}
    assert [one["code"] for one in with_snapshots.warnings] == ["COMPARED_INSTEAD_OF_TRACKING"] * 2
    told = "the VM has the snapshot(s) 'before upgrade', 'gold'; a revert"
    assert all(told in one["message"] for one in with_snapshots.warnings)
    after = story.whole(frozen(0, change_id="52 aa/3"), frozen(1, change_id="52 aa/3"))
    assert [d.base_disk_id for d in after.disks] == [d.id for d in with_snapshots.disks]
    assert {d.read_method for d in after.disks} == {ReadMethod.COMPARED}
    assert [one["code"] for one in after.warnings] == ["COMPARED_INSTEAD_OF_TRACKING"] * 2
    assert all("'before upgrade', 'gold'; a revert" in one["message"] for one in after.warnings)
    # The next one builds on a job that was made without snapshots.
    again = story.whole(frozen(0, change_id="52 aa/4"), frozen(1, change_id="52 aa/4"))
    assert [d.base_disk_id for d in again.disks] == [d.id for d in after.disks]
    assert {d.read_method for d in again.disks} == {ReadMethod.CHANGED}


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (["a"], ["a"], "was made while the VM had the snapshot(s) 'a'; a revert"),
        (["a"], ["a", "b"], "had the snapshot(s) 'a' and the VM has the snapshot(s) 'b'; a revert"),
        (["a", "b"], ["b"], "had the snapshot(s) 'a', 'b'; a revert"),
    ],
    ids=["stayed", "another", "removed"],
)
def test_snapshots_of_then_and_now_are_named(
    story: Story, before: list[str], now: list[str], told: str
) -> None:
    story.whole(other_snapshots=before)
    job = story.whole(frozen(change_id="52 aa/2"), other_snapshots=now)
    (warning,) = job.warnings
    assert told in warning["message"]


@pytest.mark.parametrize(
    ("before", "now"),
    [("52 aa/7", "52 aa/7"), ("52 aa/9", "52 aa/10"), ("52 aa", "52 aa"), ("52 aa/x", "52 aa/1")],
)
def test_change_id_that_did_not_go_back_is_asked_from(story: Story, before: str, now: str) -> None:
    first = story.whole(frozen(change_id=before))
    (disk,) = story.whole(frozen(change_id=now)).disks
    assert (disk.base_disk_id, disk.read_method) == (first.disks[0].id, ReadMethod.CHANGED)


def test_base_whose_layer_cannot_be_built_on_is_no_base(story: Story) -> None:
    first = story.whole()
    job = story.start()
    asked: list[int] = []

    def gone(row: BackupDisk) -> str:
        asked.append(row.id)
        return "its layer is gone"

    # That its changes cannot be asked for either is no reason to compare it with nothing.
    (disk,) = story.open(job, frozen(change_id="77 bb/1"), layer_problem=gone)
    assert (disk.base_disk_id, disk.read_method) == (None, ReadMethod.ALLOCATED)
    assert asked == [first.disks[0].id]
    (warning,) = story.job(job).warnings
    assert "its layer is gone" in warning["message"]


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
