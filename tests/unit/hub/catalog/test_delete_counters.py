"""A context's restore points and bytes are what its jobs add up to, whatever happens to them."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hub.catalog.delete_jobs import delete_job
from hub.catalog.models import BackupJob, VmBackupContext
from hub.errors import JobHasDependants, JobNotFound
from hub.jobs.states import BackupType, Event, Status
from tests.unit.hub.catalog.story import Story, frozen

WAIT_S = 60


def delete(story: Story, job: BackupJob, *, cascade: bool = False) -> None:
    with story.catalog.write() as session:
        delete_job(session, job.id, cascade=cascade, now=story.now())


def require_exact(story: Story) -> tuple[int, int]:
    """The contexts' counters, compared with their jobs; those of the default repository's."""
    with story.catalog.read() as session:
        contexts = {row.repository_id: row for row in session.query(VmBackupContext)}
        for context in contexts.values():
            points = (
                session.query(BackupJob)
                .filter_by(vm_backup_context_id=context.context_id, status=Status.COMPLETED)
                .order_by(BackupJob.run_number)
                .all()
            )
            last = points[-1] if points else None
            assert (
                context.restore_point_count,
                context.bytes_stored,
                context.last_backup_id,
                context.last_backup_type,
                context.last_backup_at,
            ) == (
                len(points),
                sum(job.bytes_stored for job in points),
                last and last.id,
                last and last.backup_type,
                last and last.completed_at,
            )
        asked = contexts["repo-default"]
        return asked.restore_point_count, asked.bytes_stored


def test_completion_counts_once_however_often_it_is_repeated(story: Story) -> None:
    first = story.whole(frozen(0), frozen(1))
    assert require_exact(story) == (1, 2)
    assert not story.complete(first)
    assert require_exact(story) == (1, 2)
    story.whole(frozen(0))
    assert require_exact(story) == (2, 3)


def test_unsuccessful_jobs_count_nothing(story: Story) -> None:
    story.whole()
    for event in (Event.FAILED, Event.CANCELLED):
        job = story.start()
        story.open(job)
        story.seal(job, 0)
        story.fail(job, event)
        assert require_exact(story) == (1, 1)
        delete(story, job)
        assert require_exact(story) == (1, 1)


def test_cascade_takes_back_what_its_jobs_counted(story: Story) -> None:
    jobs = [story.whole(frozen(0), frozen(1)) for _ in range(4)]
    other = story.whole(repository="repo-other")
    delete(story, jobs[1], cascade=True)
    assert require_exact(story) == (1, 2)
    assert story.context(other).restore_point_count == 1
    delete(story, jobs[0])
    assert require_exact(story) == (0, 0)


def test_completions_that_race_count_once(story: Story) -> None:
    job = story.start()
    story.open(job)
    story.seal(job, 0)
    barrier = threading.Barrier(6)

    def complete() -> bool:
        barrier.wait(WAIT_S)
        return story.complete(job)

    with ThreadPoolExecutor(6) as pool:
        moved = [one.result(WAIT_S) for one in [pool.submit(complete) for _ in range(6)]]
    assert sorted(moved) == [False] * 5 + [True]
    assert require_exact(story) == (1, 1)


def test_deletions_that_race_with_a_completion_leave_exact_counters(story: Story) -> None:
    fulls = [story.whole(kind=BackupType.FULL) for _ in range(4)]
    job = story.start(kind=BackupType.FULL)
    story.open(job)
    story.seal(job, 0)
    barrier = threading.Barrier(len(fulls) + 2)

    def delete_one(one: BackupJob) -> bool:
        barrier.wait(WAIT_S)
        try:
            delete(story, one)
        except JobNotFound:
            return False
        return True

    def complete() -> bool:
        barrier.wait(WAIT_S)
        return story.complete(job)

    with ThreadPoolExecutor(len(fulls) + 2) as pool:
        completed = pool.submit(complete)
        # One of them is deleted by two at once.
        deleted = [pool.submit(delete_one, one) for one in (*fulls, fulls[0])]
        assert completed.result(WAIT_S)
        assert sum(one.result(WAIT_S) for one in deleted) == len(fulls)
    assert require_exact(story) == (1, 1)


@pytest.mark.parametrize("seed", range(3))
def test_counters_are_exact_after_any_story(story: Story, seed: int) -> None:
    chance = random.Random(seed)
    alive: list[BackupJob] = []
    for _ in range(25):
        what = chance.choice(["full", "increment", "increment", "fail", "delete", "cascade"])
        if what in ("full", "increment"):
            disks = [frozen(index) for index in range(chance.randint(1, 3))]
            kind = BackupType.FULL if what == "full" else None
            alive.append(story.whole(*disks, kind=kind))
        elif what == "fail":
            failed = story.start()
            story.open(failed)
            story.fail(failed)
            alive.append(failed)
        elif alive:
            victim = chance.choice(alive)
            try:
                delete(story, victim, cascade=what == "cascade")
            except JobHasDependants:
                continue
        if alive:
            require_exact(story)
        with story.catalog.read() as session:
            left = {job.id for job in session.query(BackupJob)}
        alive = [job for job in alive if job.id in left]
