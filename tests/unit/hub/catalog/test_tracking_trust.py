"""Tracking that missed changes is not believed before every disk was read whole (failure 11)."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hub.catalog.bases import FrozenDisk
from hub.catalog.contexts import VmIdentity
from hub.catalog.delete_jobs import delete_job
from hub.catalog.models import BackupJob, WarningFacts
from hub.catalog.repositories import add_repository
from hub.catalog.upload_disk import SamplingFacts
from hub.jobs.states import BackupType, Event, ReadMethod
from tests.unit.hub.catalog.conftest import NOON, Clock
from tests.unit.hub.catalog.story import Story, frozen

pytestmark = pytest.mark.hostile
WAIT_S = 30
MISSED = SamplingFacts(70, 900, 42, clusters_missed=2)
CLEAN = SamplingFacts(70, 900, 42, clusters_missed=0)
OF_A_MISS: WarningFacts = {
    "code": "CBT_MISSED_CHANGES",
    "message": "changed block tracking missed 2 clusters",
    "disk_label": "Hard disk 1",
}
OTHER_VM = VmIdentity(site="lab", instance_uuid="uuid-2", moref="vm-2", name="pgtest2")


def lied(story: Story, *disks: FrozenDisk) -> BackupJob:
    """A running job whose first disk's sample found what tracking missed; every disk is sealed."""
    job = story.start()
    for row in story.open(job, *disks):
        found = row.disk_index == 0
        story.seal(
            job,
            row.disk_index,
            method=ReadMethod.COMPARED if found else None,
            sampling=MISSED if found else CLEAN,
        )
    return job


def distrust(story: Story, job: BackupJob) -> tuple[object, str | None]:
    context = story.context(job)
    return context.tracking_distrusted_since, context.tracking_distrusted_job_id


def methods(job: BackupJob) -> list[ReadMethod | None]:
    return [disk.read_method for disk in job.disks]


def delete(story: Story, job: BackupJob) -> None:
    with story.catalog.write() as session:
        delete_job(session, job.id, cascade=False, now=story.now())


def test_miss_is_distrusted_from_the_begin_of_the_upload_on(story: Story) -> None:
    story.whole()
    job = story.start()
    story.open(job)
    story.upload(job, method=ReadMethod.COMPARED, sampling=MISSED)
    assert distrust(story, job) == (NOON, job.id)


def test_all_disks_are_compared_by_the_next_job_and_it_restores_trust(story: Story) -> None:
    story.whole(frozen(0), frozen(1))
    liar = lied(story, frozen(0), frozen(1))
    story.complete(liar)
    # It believed tracking of its other disk, so it is not the one to end the distrust.
    assert methods(story.job(liar)) == [ReadMethod.COMPARED, ReadMethod.CHANGED]
    assert distrust(story, liar) == (NOON, liar.id)
    compared = story.whole(frozen(0), frozen(1))
    assert methods(compared) == [ReadMethod.COMPARED] * 2
    assert [disk.base_disk_id for disk in compared.disks] == [
        disk.id for disk in story.job(liar).disks
    ]
    assert [one["code"] for one in compared.warnings] == ["COMPARED_INSTEAD_OF_TRACKING"] * 2
    assert all(f"as backup {liar.id} found" in one["message"] for one in compared.warnings)
    assert distrust(story, liar) == (None, None)
    after = story.whole(frozen(0), frozen(1))
    assert methods(after) == [ReadMethod.CHANGED] * 2
    assert after.warnings == []


def test_job_of_one_disk_that_found_the_miss_does_not_restore_trust_itself(story: Story) -> None:
    story.whole()
    liar = lied(story, frozen())
    story.complete(liar)
    assert methods(story.job(liar)) == [ReadMethod.COMPARED]
    assert distrust(story, liar) == (NOON, liar.id)


@pytest.mark.parametrize("event", [Event.FAILED, Event.CANCELLED])
def test_distrust_outlives_the_job_that_found_it(story: Story, event: Event) -> None:
    good = story.whole()
    liar = lied(story, frozen())
    story.fail(liar, event)
    delete(story, liar)
    after = story.whole()
    assert after.disks[0].base_disk_id == good.disks[0].id
    assert methods(after) == [ReadMethod.COMPARED]
    assert distrust(story, after) == (None, None)


@pytest.mark.parametrize("event", [Event.FAILED, Event.CANCELLED])
def test_comparison_that_did_not_complete_restores_no_trust(story: Story, event: Event) -> None:
    story.whole()
    liar = lied(story, frozen())
    story.complete(liar)
    broken = story.start()
    story.open(broken)
    story.seal(broken)
    story.fail(broken, event)
    assert distrust(story, liar) == (NOON, liar.id)
    assert methods(story.whole()) == [ReadMethod.COMPARED]


def test_requested_full_restores_trust(story: Story) -> None:
    story.whole()
    liar = lied(story, frozen())
    story.complete(liar)
    assert methods(story.whole(kind=BackupType.FULL)) == [ReadMethod.ALLOCATED]
    assert distrust(story, liar) == (None, None)


def test_full_beside_a_comparison_restores_trust(story: Story) -> None:
    story.whole()
    story.complete(lied(story, frozen()))
    mixed = story.whole(frozen(0), frozen(1))
    assert methods(mixed) == [ReadMethod.COMPARED, ReadMethod.ALLOCATED]
    assert distrust(story, mixed) == (None, None)


def test_second_miss_names_the_latest_job_and_keeps_the_first_time(
    story: Story, clock: Clock
) -> None:
    """A seal may tell what no sample did."""
    story.whole()
    first = lied(story, frozen())
    story.fail(first)
    clock.advance(3600)
    second = story.start()
    story.open(second)
    story.seal(second, clusters_missed=1)
    assert distrust(story, second) == (NOON, second.id)
    story.complete(second)
    assert distrust(story, second) == (NOON, second.id)


def test_what_was_backed_up_before_is_compared_again_when_what_followed_is_deleted(
    story: Story,
) -> None:
    """Tracking missed changes of before that backup: nothing else would ever find them."""
    suspect = story.whole()
    liar = lied(story, frozen())
    story.fail(liar)
    compared = story.whole()
    delete(story, compared)
    delete(story, liar)
    assert distrust(story, suspect) == (None, None)
    after = story.whole()
    assert after.disks[0].base_disk_id == suspect.disks[0].id
    assert methods(after) == [ReadMethod.COMPARED]
    assert f"{suspect.id}, is from before" in after.warnings[0]["message"]
    # Its points are good ones, though trust was not restored by it.
    assert methods(story.whole()) == [ReadMethod.CHANGED]


def test_misses_of_all_disks_at_once_are_recorded_while_others_are_sealed(story: Story) -> None:
    """Their transactions lock the same rows in the same order: none is a deadlock's victim."""
    disks = [frozen(index) for index in range(6)]
    story.whole(*disks)
    liar = story.start()
    story.open(liar, *disks)
    barrier = threading.Barrier(len(disks))

    def upload(index: int) -> None:
        barrier.wait(WAIT_S)
        story.seal(
            liar, index, method=ReadMethod.COMPARED, sampling=MISSED, clusters_missed=3 + index
        )

    with ThreadPoolExecutor(len(disks)) as pool:
        for done in [pool.submit(upload, disk.disk_index) for disk in disks]:
            done.result(WAIT_S)
    story.complete(liar)
    assert [disk.clusters_missed for disk in story.job(liar).disks] == [3, 4, 5, 6, 7, 8]
    assert distrust(story, liar) == (NOON, liar.id)


@pytest.mark.parametrize("event", [Event.FAILED, Event.CANCELLED])
@pytest.mark.parametrize("late", [False, True], ids=["ending", "ended"])
def test_miss_that_only_a_warning_tells_of_is_distrusted(
    story: Story, event: Event, late: bool
) -> None:
    """The job ended before the upload of the disk began, or before its agent was heard."""
    good = story.whole()
    liar = story.start()
    story.open(liar)
    if late:
        assert story.fail(liar, event)
    assert story.fail(liar, event, warnings=[OF_A_MISS], with_files=True) is not late
    assert distrust(story, liar) == (NOON, liar.id)
    after = story.whole()
    assert after.disks[0].base_disk_id == good.disks[0].id
    assert methods(after) == [ReadMethod.COMPARED]
    assert distrust(story, after) == (None, None)


def test_job_completed_with_a_warning_of_a_miss_restores_no_trust(story: Story) -> None:
    """Not even when it read every disk whole."""
    story.whole()
    liar = story.start()
    story.open(liar)
    story.seal(liar, method=ReadMethod.COMPARED)
    assert story.complete(liar, [OF_A_MISS])
    assert distrust(story, liar) == (NOON, liar.id)
    assert methods(story.whole()) == [ReadMethod.COMPARED]
    assert distrust(story, liar) == (None, None)


def test_other_warnings_cost_no_trust(story: Story) -> None:
    story.whole()
    job = story.start()
    story.open(job)
    story.fail(job, warnings=[OF_A_MISS | {"code": "COMPARED_INSTEAD_OF_TRACKING"}])
    assert distrust(story, job) == (None, None)


@pytest.mark.parametrize("told_by", ["sample", "seal", "failure", "completion"])
def test_miss_is_the_vms_and_every_repository_looks_at_all_by_itself(
    story: Story, told_by: str
) -> None:
    other = story.whole(repository="repo-other")
    stranger = story.whole(vm=OTHER_VM)
    story.whole()
    liar = story.start()
    story.open(liar)
    match told_by:
        case "sample":
            story.upload(liar, method=ReadMethod.COMPARED, sampling=MISSED)
            story.fail(liar)
        case "seal":
            story.seal(liar, clusters_missed=1)
            story.fail(liar)
        case "failure":
            story.fail(liar, warnings=[OF_A_MISS])
        case "completion":
            story.seal(liar)
            story.complete(liar, [OF_A_MISS])
    assert distrust(story, liar) == distrust(story, other) == (NOON, liar.id)
    assert distrust(story, stranger) == (None, None)
    assert methods(story.whole()) == [ReadMethod.COMPARED]
    assert distrust(story, liar) == (None, None)
    assert distrust(story, other) == (NOON, liar.id)
    after = story.whole(repository="repo-other")
    assert methods(after) == [ReadMethod.COMPARED]
    assert liar.id in after.warnings[0]["message"]
    assert distrust(story, other) == (None, None)
    for repository in ("repo-default", "repo-other"):
        assert methods(story.whole(repository=repository)) == [ReadMethod.CHANGED]


def test_misses_in_all_repositories_at_once_end_in_no_deadlock(story: Story) -> None:
    """Each transaction locks the contexts of all; others lock one, and its repository's row."""
    with story.catalog.write() as session:
        add_repository(
            session,
            repository_id="repo-third",
            name="third",
            path="/third",
            default=False,
            now=NOON,
        )
    repositories = ("repo-default", "repo-other", "repo-third")
    barrier = threading.Barrier(len(repositories))

    def lives(repository: str) -> BackupJob:
        story.whole(repository=repository)
        for last in range(4):
            barrier.wait(WAIT_S)
            job = story.start(repository=repository)
            story.open(job)
            story.seal(job, method=ReadMethod.COMPARED, clusters_missed=2)
            if last % 2:
                assert story.fail(job, warnings=[OF_A_MISS], with_files=True)
            else:
                assert story.complete(job, [OF_A_MISS])
        return job

    with ThreadPoolExecutor(len(repositories)) as pool:
        jobs = [done.result(WAIT_S) for done in [pool.submit(lives, one) for one in repositories]]
    finders = {distrust(story, job) for job in jobs}
    assert len(finders) == 1
    assert finders <= {(NOON, job.id) for job in jobs}
