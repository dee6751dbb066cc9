import threading
from dataclasses import replace

import pytest

from hub.catalog.engine import Catalog
from hub.errors import BackupRunning
from hub.jobs.states import Event, Status
from tests.unit.hub.catalog.conftest import NOON, Clock
from tests.unit.hub.catalog.story import PGTEST, Story


def test_job_is_pending_under_a_context_of_its_vm(story: Story) -> None:
    job = story.start()
    seconds = int(NOON.timestamp())
    assert job.id == f"backup-pgtest1-{seconds}"
    assert job.vm_backup_context_id == f"ctx-backup-pgtest1-{seconds}"
    assert job.status is Status.PENDING


def test_second_running_job_of_a_context_is_refused(story: Story) -> None:
    first = story.start()
    with pytest.raises(BackupRunning) as refused:
        story.start()
    assert refused.value.job_id == first.id
    # The refused one left nothing behind.
    assert story.context(first).total_backups_run == 1


def test_running_jobs_are_refused_by_the_database_when_they_race(story: Story) -> None:
    barrier, outcomes = threading.Barrier(8), []

    def race() -> None:
        barrier.wait(10)
        try:
            outcomes.append(story.start().id)
        except BackupRunning as error:
            outcomes.append(error)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    started = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(outcomes) == 8
    assert len(started) == 1
    assert {o.job_id for o in outcomes if isinstance(o, BackupRunning)} == set(started)


@pytest.mark.parametrize("event", [Event.FAILED, Event.CANCELLED])
def test_next_job_may_start_when_the_last_one_ended(story: Story, event: Event) -> None:
    first = story.start()
    story.fail(first, event)
    second = story.start()
    assert second.vm_backup_context_id == first.vm_backup_context_id
    assert (first.run_number, second.run_number) == (1, 2)


def test_jobs_of_one_second_do_not_collide(story: Story) -> None:
    jobs = []
    for _ in range(3):
        job = story.start()
        story.fail(job)
        jobs.append(job.id)
    assert len(set(jobs)) == 3


def test_vms_whose_names_read_alike_do_not_collide(story: Story) -> None:
    names = ["db 1", "db/1", "DB-1", "db-1-disk-0", "数", "据"]
    jobs = [story.start(replace(PGTEST, name=n, instance_uuid=f"u{n}")) for n in names]
    assert len({job.id for job in jobs}) == len({j.vm_backup_context_id for j in jobs}) == 6
    assert [story.context(job).vm_name for job in jobs] == names


def test_renamed_vm_keeps_its_context(story: Story) -> None:
    first = story.start()
    story.fail(first)
    second = story.start(replace(PGTEST, name="pgprod", moref="vm-99"))
    assert second.vm_backup_context_id == first.vm_backup_context_id
    context = story.context(second)
    assert (context.vm_name, context.vmware_vm_id) == ("pgprod", "vm-99")


@pytest.mark.parametrize(
    "other", [{"site": "dr"}, {"instance_uuid": "uuid-2"}], ids=["other-site", "other-vm"]
)
def test_vm_of_the_same_name_has_a_context_of_its_own(story: Story, other: dict[str, str]) -> None:
    first = story.start()
    second = story.start(replace(PGTEST, **other))
    assert first.vm_backup_context_id != second.vm_backup_context_id


def test_repositories_have_contexts_of_their_own(story: Story) -> None:
    assert (
        story.start().vm_backup_context_id
        != story.start(repository="repo-other").vm_backup_context_id
    )


def test_repeated_request_starts_nothing_new(story: Story, catalog: Catalog) -> None:
    first = story.start(request_id="r-1")
    assert story.start(request_id="r-1").id == first.id
    story.fail(first)


def test_order_of_jobs_does_not_depend_on_the_clock(story: Story, clock: Clock) -> None:
    story.whole()
    clock.advance(-3600)
    second = story.whole()
    assert story.whole().disks[0].base_disk_id == second.disks[0].id
