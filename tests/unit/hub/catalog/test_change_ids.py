"""The change id that the next increment builds on is found by foreign keys."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from hub.catalog.change_ids import DiskChangeId, change_id_by_word, change_id_of
from hub.catalog.contexts import VmIdentity
from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext
from hub.errors import (
    ChangeIdNotFound,
    RepositoryNotFound,
    TwinsAmbiguous,
    VmAmbiguous,
    VmNotFound,
)
from tests.unit.hub.catalog.conftest import NOON, Clock
from tests.unit.hub.catalog.story import PGTEST, Story, frozen


def change_id(
    story: Story, vm: str = "pgtest1", *, site: str = "", repository: str = "", index: int = 0
) -> DiskChangeId:
    with story.catalog.read() as session:
        return change_id_by_word(session, vm=vm, site=site, repository=repository, disk_index=index)


def change_id_of_vm(
    story: Story, vm: VmIdentity, *, repository: str = "", index: int = 0
) -> DiskChangeId:
    with story.catalog.read() as session:
        return change_id_of(session, vm, vm=vm.name, repository=repository, disk_index=index)


def problem(story: Story, vm: str = "pgtest1", **more: object) -> str:
    with pytest.raises(ChangeIdNotFound) as refused:
        change_id(story, vm, **more)  # type: ignore[arg-type]
    assert refused.value.vm == vm
    return refused.value.problem


@pytest.mark.parametrize("vm", ["pgtest1", "vm-1", "uuid-1", "UUID-1"])
def test_change_id_is_of_the_last_completed_job_whoever_asks(story: Story, vm: str) -> None:
    story.whole(frozen(0, change_id="52 aa/1"), frozen(1, change_id="52 bb/1"))
    last = story.whole(frozen(0, change_id="52 aa/2"), frozen(1, change_id="52 bb/2"))
    failed = story.start()
    story.open(failed, frozen(0, change_id="52 aa/3"))
    story.fail(failed)
    running = story.start()
    story.open(running, frozen(0, change_id="52 aa/4"))
    assert change_id(story, vm, index=1) == DiskChangeId(
        change_id="52 bb/2",
        context_id=last.vm_backup_context_id,
        job_id=last.id,
        disk_id=last.disks[1].id,
        vmware_disk_key=2001,
        disk_uuid="6000C29e-1",
        completed_at=NOON,
    )


def test_neither_clock_nor_names_of_jobs_decide(story: Story, clock: Clock) -> None:
    clock.advance(3600)
    story.whole(frozen(change_id="52 aa/1"))
    clock.at = NOON
    last = story.whole(frozen(change_id="52 aa/2"))
    assert change_id(story).job_id == last.id
    assert change_id(story).change_id == "52 aa/2"


def test_each_repository_has_its_own(story: Story) -> None:
    here = story.whole(frozen(change_id="52 aa/1"))
    there = story.whole(frozen(change_id="52 aa/2"), repository="repo-other")
    assert change_id(story).job_id == here.id
    assert change_id(story, repository="other").job_id == there.id
    assert change_id(story, repository="repo-other").change_id == "52 aa/2"
    with pytest.raises(RepositoryNotFound):
        change_id(story, repository="nowhere")


def test_renamed_vm_is_found_by_the_name_it_was_last_backed_up_under(story: Story) -> None:
    story.whole()
    last = story.whole(vm=replace(PGTEST, name="データベース"))
    assert change_id(story, "データベース").job_id == last.id
    with pytest.raises(VmNotFound):
        change_id(story, "pgtest1")


def test_vms_of_one_name_are_ambiguous_until_the_site_or_the_uuid_is_named(story: Story) -> None:
    lab = story.whole()
    dr = story.whole(vm=replace(PGTEST, site="dr", instance_uuid="uuid-2", moref="vm-7"))
    again = story.whole(vm=replace(PGTEST, instance_uuid="uuid-3", moref="vm-9"))
    with pytest.raises(VmAmbiguous) as refused:
        change_id(story)
    assert list(refused.value.sites) == ["dr", "lab"]
    assert change_id(story, site="dr").job_id == dr.id
    with pytest.raises(TwinsAmbiguous) as twins:
        change_id(story, site="lab")
    assert list(twins.value.instance_uuids) == ["uuid-1", "uuid-3"]
    assert "one of uuid-1, uuid-3" in str(twins.value)
    assert change_id(story, "uuid-1").job_id == lab.id
    assert change_id(story, "uuid-3").job_id == again.id


def test_what_is_missing_is_named(story: Story) -> None:
    with pytest.raises(VmNotFound):
        change_id(story)
    job = story.start()
    assert problem(story) == "it has no completed backup in repository 'default'"
    assert problem(story, repository="other") == "it was never backed up into repository 'other'"
    with pytest.raises(VmNotFound, match="of site 'dr' was backed up"):
        change_id(story, site="dr")
    story.open(job, frozen(0), frozen(2))
    story.seal(job, 0)
    story.seal(job, 2)
    story.complete(job)
    assert problem(story, index=1) == f"its last completed backup, {job.id}, has the disks 0, 2"


def test_disk_without_tracking_has_an_empty_change_id(story: Story) -> None:
    story.whole(frozen(change_id=""))
    assert change_id(story).change_id == ""


def test_imported_job_has_no_change_id_to_build_on(story: Story) -> None:
    job = story.whole()
    with story.catalog.write() as session:
        session.execute(update(BackupJob).where(BackupJob.id == job.id).values(imported_at=NOON))
        session.execute(update(BackupDisk).values(legacy_id="old-1", root_digest=None))
    assert "imported" in problem(story)


def test_reported_vm_has_its_own_contexts_change_id_whatever_others_are_called(
    story: Story,
) -> None:
    of_renamed = story.whole(frozen(change_id="52 aa/1"))
    renamed, newcomer = replace(PGTEST, name="old-pg"), replace(PGTEST, instance_uuid="uuid-2")
    with pytest.raises(ChangeIdNotFound, match="never backed up into repository 'default'"):
        change_id_of_vm(story, newcomer)
    assert change_id_of_vm(story, renamed).job_id == of_renamed.id
    of_newcomer = story.whole(frozen(change_id="52 bb/1"), vm=newcomer)
    assert change_id_of_vm(story, newcomer).job_id == of_newcomer.id
    assert change_id_of_vm(story, renamed).change_id == "52 aa/1"
    with pytest.raises(ChangeIdNotFound, match="never backed up into repository 'other'"):
        change_id_of_vm(story, renamed, repository="other")
    with pytest.raises(ChangeIdNotFound, match="has the disks 0"):
        change_id_of_vm(story, renamed, index=1)


def test_reported_vm_is_found_in_its_imported_context_which_stays_as_it_is(story: Story) -> None:
    job = story.whole(vm=replace(PGTEST, instance_uuid="legacy:pgtest1"))
    with story.catalog.write() as session:
        session.execute(update(BackupJob).where(BackupJob.id == job.id).values(imported_at=NOON))
    with pytest.raises(ChangeIdNotFound, match="was imported"):
        change_id_of_vm(story, PGTEST)
    with story.catalog.read() as session:
        context = session.get_one(VmBackupContext, job.vm_backup_context_id)
        assert context.instance_uuid == "legacy:pgtest1"
    story.start()
    assert story.context(job).instance_uuid == PGTEST.instance_uuid
