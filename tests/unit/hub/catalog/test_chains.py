"""Chains are read by foreign key, in few questions however long they are."""

import pytest
from sqlalchemy import event, update

from hub.catalog import chains
from hub.catalog.chains import chain_of
from hub.catalog.engine import Catalog
from hub.catalog.models import BackupDisk, BackupJob
from hub.catalog.queries import find_disk, restorable_chain
from hub.errors import ChainDamaged, NotARestorePoint
from hub.jobs.states import BackupType, Event, Status
from tests.unit.hub.catalog.conftest import NOON
from tests.unit.hub.catalog.story import Story, frozen


def long_chain(story: Story, layers: int) -> tuple[BackupJob, list[int]]:
    """A job whose disk 1 has that many layers; the disk ids, newest first."""
    first = story.whole(frozen(0), frozen(1))
    ids = [first.disks[1].id]
    with story.catalog.write() as session:
        for number in range(2, layers + 1):
            job = BackupJob(
                id=f"backup-{number}",
                vm_backup_context_id=first.vm_backup_context_id,
                repository_id=first.repository_id,
                run_number=number,
                backup_type=BackupType.INCREMENTAL,
                status=Status.COMPLETED,
                disk_count=1,
                created_at=NOON,
            )
            disk = BackupDisk(
                vm_backup_context_id=first.vm_backup_context_id,
                backup_job_id=job.id,
                disk_index=1,
                vmware_disk_key=2001,
                disk_uuid="6000C29e-1",
                label="Hard disk 2",
                capacity_bytes=1 << 30,
                backup_type=BackupType.INCREMENTAL,
                base_disk_id=ids[0],
                qcow2_path=f"ctx/{job.id}/disk-1.qcow2",
                status=Status.COMPLETED,
                created_at=NOON,
            )
            session.add(job)
            session.flush()
            session.add(disk)
            session.flush()
            ids.insert(0, disk.id)
    return story.job(job), ids


class Statements:
    """Counts what a catalog asks its database."""

    def __init__(self, catalog: Catalog) -> None:
        self.count = 0
        event.listen(catalog.engine, "before_cursor_execute", self._note)

    def _note(self, *args: object) -> None:
        self.count += 1


def test_chain_of_200_layers_is_read_in_a_few_statements(catalog: Catalog, story: Story) -> None:
    job, ids = long_chain(story, 200)
    asked = Statements(catalog)
    with catalog.read() as session:
        rows = restorable_chain(session, job.id, 1)
        assert [row.id for row in rows] == ids
        # All that a list of the layers tells is there.
        assert {row.job.context.vm_name for row in rows} == {"pgtest1"}
        assert [row.base.id if row.base else None for row in rows] == [*ids[1:], None]
    assert 3 <= asked.count <= 6


@pytest.mark.parametrize("at_once", [1, 2, 7, 8, 9])
def test_chain_longer_than_one_question_is_read_whole(
    catalog: Catalog, story: Story, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    job, ids = long_chain(story, 9)
    monkeypatch.setattr(chains, "ROWS_AT_ONCE", at_once)
    with catalog.read() as session:
        assert [row.id for row in restorable_chain(session, job.id, 1)] == ids


def test_rows_that_lead_back_to_themselves_are_no_chain(catalog: Catalog, story: Story) -> None:
    job, ids = long_chain(story, 3)
    with catalog.write() as session:
        session.execute(
            update(BackupDisk).where(BackupDisk.id == ids[2]).values(base_disk_id=ids[1])
        )
    with catalog.read() as session, pytest.raises(ChainDamaged, match="unfit"):
        restorable_chain(session, job.id, 1)


def test_base_of_another_context_or_without_a_layer_is_no_chain(
    catalog: Catalog, story: Story
) -> None:
    job, ids = long_chain(story, 3)
    other = story.whole(repository="repo-other")
    for change in ({"vm_backup_context_id": other.vm_backup_context_id}, {"status": Status.FAILED}):
        before = {"vm_backup_context_id": job.vm_backup_context_id, "status": Status.COMPLETED}
        with catalog.write() as session:
            session.execute(update(BackupDisk).where(BackupDisk.id == ids[1]).values(**change))
        with catalog.read() as session, pytest.raises(ChainDamaged, match="unfit"):
            restorable_chain(session, job.id, 1)
        with catalog.write() as session:
            session.execute(update(BackupDisk).where(BackupDisk.id == ids[1]).values(**before))
    with catalog.read() as session:
        assert len(restorable_chain(session, job.id, 1)) == 3


def test_increment_that_lost_its_base_is_no_restore_point(catalog: Catalog, story: Story) -> None:
    job, ids = long_chain(story, 2)
    with catalog.write() as session:
        session.execute(update(BackupDisk).where(BackupDisk.id == ids[0]).values(base_disk_id=None))
    with catalog.read() as session, pytest.raises(ChainDamaged, match="without a base"):
        restorable_chain(session, job.id, 1)


def test_failed_increment_whose_base_was_deleted_is_a_row_like_any(
    catalog: Catalog, story: Story
) -> None:
    base = story.whole()
    failed = story.start()
    story.open(failed)
    story.fail(failed, Event.CANCELLED)
    with catalog.write() as session:
        session.execute(
            update(BackupDisk)
            .where(BackupDisk.base_disk_id == base.disks[0].id)
            .values(base_disk_id=None)
        )
    with catalog.read() as session:
        disk = find_disk(session, failed.id, 0)
        assert disk.backup_type is BackupType.INCREMENTAL
        assert [row.id for row in chain_of(session, disk)] == [disk.id]
        with pytest.raises(NotARestorePoint):
            restorable_chain(session, failed.id, 0)
