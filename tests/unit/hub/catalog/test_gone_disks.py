"""Disks that come, go, move and change places between backups (reference: failures 7, 9)."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from hub.catalog.models import BackupDisk, WarningFacts
from hub.jobs.states import BackupType, ReadMethod
from tests.unit.hub.catalog.story import Story, frozen

pytestmark = pytest.mark.hostile


def codes(warnings: list[WarningFacts]) -> list[tuple[str, str]]:
    return [(one["code"], one.get("disk_label", "")) for one in warnings]


@pytest.mark.parametrize("kind", [None, BackupType.FULL], ids=["increment", "full"])
def test_gone_disk_is_told_once_and_its_restore_points_stay(
    story: Story, kind: BackupType | None
) -> None:
    first = story.whole(frozen(0), frozen(1), frozen(2))
    second = story.whole(replace(frozen(2), disk_index=0), kind=kind)
    assert codes(second.warnings) == [("DISK_GONE", "Hard disk 1"), ("DISK_GONE", "Hard disk 2")]
    assert second.warnings[0]["message"] == (
        "Hard disk 1 (device key 2000) of the last backup is no disk of the VM any more; "
        "its restore points stay"
    )
    assert [disk.qcow2_path for disk in story.job(first).disks] == [
        disk.qcow2_path for disk in first.disks
    ]
    assert story.whole(replace(frozen(2), disk_index=0)).warnings == []


def test_disks_that_changed_places_keep_their_bases(story: Story) -> None:
    first = story.whole(frozen(0), frozen(1))
    second = story.whole(replace(frozen(1), disk_index=0), replace(frozen(0), disk_index=1))
    assert [d.base_disk_id for d in second.disks] == [first.disks[1].id, first.disks[0].id]
    assert second.warnings == []


def test_new_disk_is_full_beside_increments_of_the_same_job(story: Story) -> None:
    first = story.whole(frozen(0))
    job = story.whole(frozen(0), frozen(1))
    assert [d.base_disk_id for d in job.disks] == [first.disks[0].id, None]
    assert [d.read_method for d in job.disks] == [ReadMethod.CHANGED, ReadMethod.ALLOCATED]
    assert codes(job.warnings) == [("FULL_INSTEAD_OF_INCREMENTAL", "Hard disk 2")]


def test_new_disk_in_the_place_of_a_gone_one_is_another_disk(story: Story) -> None:
    """The same device key and label: only the uuid tells."""
    story.whole(frozen(0), frozen(1))
    job = story.whole(frozen(0), frozen(1, disk_uuid="6000C29e-new"))
    assert job.disks[1].base_disk_id is None
    assert codes(job.warnings) == [
        ("FULL_INSTEAD_OF_INCREMENTAL", "Hard disk 2"),
        ("DISK_GONE", "Hard disk 2"),
    ]


def test_disk_moved_to_another_controller_is_a_new_disk(story: Story) -> None:
    story.whole(frozen(0))
    job = story.whole(frozen(0, vmware_disk_key=16000))
    assert job.disks[0].base_disk_id is None
    assert codes(job.warnings) == [
        ("FULL_INSTEAD_OF_INCREMENTAL", "Hard disk 1"),
        ("DISK_GONE", "Hard disk 1"),
    ]


def test_two_disks_with_one_uuid_are_told_apart_by_their_keys(story: Story) -> None:
    twins = [frozen(0, disk_uuid="same"), frozen(1, disk_uuid="same")]
    first = story.whole(*twins)
    second = story.whole(replace(twins[1], disk_index=0))
    assert second.disks[0].base_disk_id == first.disks[1].id
    assert codes(second.warnings) == [("DISK_GONE", "Hard disk 1")]


def test_skipped_disk_is_not_called_gone(story: Story) -> None:
    story.whole(frozen(0), frozen(1))
    skipped: WarningFacts = {
        "code": "DISK_SKIPPED",
        "message": "independent",
        "disk_label": "Hard disk 2",
    }
    job = story.start()
    story.open(job, frozen(0), warnings=[skipped])
    assert story.job(job).warnings == [skipped]


def test_imported_disk_without_a_uuid_is_not_called_gone(story: Story) -> None:
    story.whole()
    with story.catalog.write() as session:
        session.execute(update(BackupDisk).values(legacy_id="old-1", disk_uuid=""))
    job = story.whole()
    assert codes(job.warnings) == [("FULL_INSTEAD_OF_INCREMENTAL", "Hard disk 1")]
