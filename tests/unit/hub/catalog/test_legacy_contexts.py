"""Contexts that were imported without an instance uuid, and jobs that are imported late."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from hub.catalog.contexts import IMPORTED_UUID, find_or_add_context
from hub.catalog.engine import Catalog
from hub.catalog.legacy.write import WrittenContext, write_context
from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext
from hub.jobs.states import BackupType
from hub.legacy.places import Place
from hub.legacy.planned import PlannedContext, PlannedDisk, PlannedJob
from tests.unit.hub.catalog.conftest import NOON, Clock
from tests.unit.hub.catalog.story import PGTEST, Story

pytestmark = pytest.mark.legacy_import
DEFAULT = Place("old-1", "repo-default", "default", Path("/default"), "")


def add_imported(catalog: Catalog, name: str = "c1", **more: str) -> None:
    facts = {
        "context_id": name,
        "vm_name": PGTEST.name,
        "vmware_vm_id": PGTEST.moref,
        "instance_uuid": f"{IMPORTED_UUID}{name}",
        "site": PGTEST.site,
        "repository_id": "repo-default",
    } | more
    with catalog.write() as session:
        session.add(VmBackupContext(**facts, created_at=NOON))


def found(catalog: Catalog) -> tuple[str, str]:
    """Context id and instance uuid that a backup of PGTEST gets."""
    with catalog.write() as session:
        context = find_or_add_context(session, PGTEST, "repo-default", NOON)
        return context.context_id, context.instance_uuid


def test_imported_context_of_the_vm_takes_its_uuid_over_once(catalog: Catalog) -> None:
    add_imported(catalog)
    assert found(catalog) == ("c1", PGTEST.instance_uuid)
    assert found(catalog) == ("c1", PGTEST.instance_uuid)
    with catalog.read() as session:
        assert len(session.scalars(select(VmBackupContext)).all()) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"site": "other"},
        {"vm_name": "pgtest2"},
        {"vm_name": "PGTEST1"},
        {"vmware_vm_id": "vm-2"},
        {"vmware_vm_id": ""},
        {"repository_id": "repo-other"},
        {"instance_uuid": "uuid-2"},
        {"instance_uuid": "legacy_c1"},
    ],
    ids=lambda other: "-".join(next(iter(other.items()))),
)
def test_context_that_is_not_surely_the_vms_stays_as_it_is(
    catalog: Catalog, other: dict[str, str]
) -> None:
    add_imported(catalog, **other)
    assert found(catalog)[0] != "c1"
    with catalog.read() as session:
        untouched = session.get(VmBackupContext, "c1")
        assert untouched is not None
        assert untouched.instance_uuid == other.get("instance_uuid", "legacy:c1")


def test_two_imported_contexts_that_fit_are_not_chosen_from(catalog: Catalog) -> None:
    add_imported(catalog, "c1")
    add_imported(catalog, "c2")
    assert found(catalog)[0] not in ("c1", "c2")


def test_context_with_the_uuid_goes_before_an_imported_one(catalog: Catalog) -> None:
    add_imported(catalog, "c1")
    add_imported(catalog, "c2", instance_uuid=PGTEST.instance_uuid, vm_name="renamed")
    assert found(catalog)[0] == "c2"


def job(number: int, *, base: int | None, existing: str = "") -> PlannedJob:
    """The k-th old backup, of one disk."""
    kind = BackupType.FULL if base is None else BackupType.INCREMENTAL
    disk = PlannedDisk(
        legacy_id=f"old-{number}-disk0",
        disk_index=0,
        disk_key=2000,
        backup_type=kind,
        base_legacy_id=None if base is None else f"old-{base}-disk0",
        change_id="",
        path=f"layers/{number}.qcow2",
        capacity_bytes=65536,
        bytes_transferred=7,
        bytes_stored=100 + number,
        created_at=NOON,
        completed_at=NOON,
        notes=(),
    )
    return PlannedJob(
        f"old-{number}", f"old-{number}", "parent", kind, NOON, NOON, NOON, (disk,), existing
    )


def planned(*jobs: PlannedJob, existing: str = "") -> PlannedContext:
    return PlannedContext(
        old_id="ctx-old",
        vm_name=PGTEST.name,
        moref=PGTEST.moref,
        instance_uuid=PGTEST.instance_uuid,
        site=PGTEST.site,
        place=DEFAULT,
        created_at=NOON,
        jobs=jobs,
        existing_id=existing,
    )


def write(catalog: Catalog, plan: PlannedContext, *taken: str) -> WrittenContext:
    with catalog.write() as session:
        return write_context(session, plan, folder_exists=lambda name: name in taken, now=NOON)


def order(catalog: Catalog) -> list[tuple[str, int]]:
    with catalog.read() as session:
        rows = session.execute(
            select(BackupJob.id, BackupJob.run_number).order_by(BackupJob.run_number)
        )
        return [(row[0], row[1]) for row in rows]


def test_jobs_that_come_later_stand_where_they_belong(
    catalog: Catalog, story: Story, clock: Clock
) -> None:
    own = story.whole()
    first = write(catalog, planned(job(2, base=None), job(4, base=2)))
    clock.advance(60)
    newest = story.whole()
    assert order(catalog) == [("old-2", 1), ("old-4", 2), (own.id, 3), (newest.id, 4)]
    late = planned(
        job(1, base=None),
        job(2, base=None, existing="old-2"),
        job(3, base=2),
        job(4, base=2, existing="old-4"),
        job(5, base=3),
        existing=first.context_id,
    )
    write(catalog, late)
    after = [
        *(("old-1", 1), ("old-2", 2), ("old-3", 3), ("old-4", 4), ("old-5", 5)),
        *((own.id, 6), (newest.id, 7)),
    ]
    assert order(catalog) == after
    context = story.context(own)
    assert (context.total_backups_run, context.successful_backups) == (7, 7)
    assert (context.restore_point_count, context.last_backup_id) == (7, newest.id)
    assert context.bytes_stored == 1 + 1 + sum(100 + number for number in range(1, 6))
    # Repeated after an answer that was lost.
    assert write(catalog, late).job_ids == {}
    assert order(catalog) == after
    clock.advance(60)
    assert story.whole().run_number == 8


def test_bases_are_foreign_keys(catalog: Catalog) -> None:
    write(catalog, planned(job(1, base=None), job(2, base=1)))
    with catalog.read() as session:
        rows = {row.legacy_id: row for row in session.scalars(select(BackupDisk))}
    assert rows["old-2-disk0"].base_disk_id == rows["old-1-disk0"].id


def test_ids_that_are_taken_or_are_none_get_new_ones(catalog: Catalog, story: Story) -> None:
    own = story.whole()
    taken = replace(job(1, base=None), wanted_id=own.id)
    bad = replace(job(2, base=None), wanted_id="a/b")
    like_its_file = replace(job(3, base=None), wanted_id="3.qcow2")
    other = replace(planned(taken, bad, like_its_file), instance_uuid="uuid-9")
    written = write(catalog, other, "ctx-old")
    assert written.context_id.startswith("ctx-backup-pgtest1-")
    ids = list(written.job_ids.values())
    assert len(set(ids)) == 3 and not {own.id, "a/b", "3.qcow2"} & set(ids)


def test_nothing_is_written_when_a_row_cannot_be(catalog: Catalog) -> None:
    broken = replace(job(2, base=7))
    with pytest.raises(KeyError):
        write(catalog, planned(job(1, base=None), broken))
    with catalog.read() as session:
        assert not session.scalars(select(VmBackupContext)).all()
        assert not session.scalars(select(BackupJob)).all()
