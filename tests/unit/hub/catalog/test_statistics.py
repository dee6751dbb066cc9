"""Statistics: the same as all jobs counted in Python."""

from collections.abc import Callable
from datetime import date, timedelta

import pytest

from hub.catalog.delete_jobs import delete_job
from hub.catalog.engine import Catalog
from hub.catalog.statistics import DaySums, catalog_totals, day_sums, in_all
from hub.jobs.states import BackupType, Status
from tests.unit.hub.catalog.conftest import NOON, Clock
from tests.unit.hub.catalog.random_jobs import BEGIN, DAYS, FlatJob, add_random_jobs
from tests.unit.hub.catalog.story import Story, frozen

FIRST = BEGIN.date()


@pytest.fixture
def jobs(catalog: Catalog) -> list[FlatJob]:
    with catalog.write() as session:
        return add_random_jobs(session, seed=7, contexts=12, jobs=500)


def counted(jobs: list[FlatJob], day: date, repository_id: str) -> DaySums:
    """The day in Python."""
    of_day = [
        job
        for job in jobs
        if job.created_at.date() == day and repository_id in ("", job.repository_id)
    ]
    done = [job for job in of_day if job.status is Status.COMPLETED]
    return DaySums(
        day,
        jobs=len(of_day),
        jobs_completed=len(done),
        jobs_failed=sum(job.status is Status.FAILED for job in of_day),
        jobs_cancelled=sum(job.status is Status.CANCELLED for job in of_day),
        jobs_full=sum(job.backup_type is BackupType.FULL for job in done),
        bytes_read=sum(job.bytes_read for job in done),
        bytes_transferred=sum(job.bytes_transferred for job in done),
        bytes_stored=sum(job.bytes_stored for job in done),
        busy_seconds=pytest.approx(
            sum(
                (job.completed_at - job.started_at).total_seconds()
                for job in done
                if job.completed_at and job.started_at
            ),
            abs=1e-3 * max(1, len(done)),
        ),
    )


@pytest.mark.parametrize("repository_id", ["", "repo-default", "repo-other", "repo-empty"])
def test_days_are_what_their_jobs_add_up_to(
    catalog: Catalog, jobs: list[FlatJob], repository_id: str
) -> None:
    begin, days = FIRST - timedelta(days=2), DAYS + 5
    with catalog.read() as session:
        found = day_sums(session, first=begin, days=days, repository_id=repository_id)
    expected = [
        counted(jobs, begin + timedelta(days=number), repository_id) for number in range(days)
    ]
    assert found == expected
    assert (sum(day.jobs for day in found) > 0) is (repository_id != "repo-empty")


def test_period_ends_at_its_last_day(catalog: Catalog, jobs: list[FlatJob]) -> None:
    with catalog.read() as session:
        found = day_sums(session, first=FIRST + timedelta(days=4), days=1)
    assert found == [counted(jobs, FIRST + timedelta(days=4), "")]


def test_day_begins_and_ends_at_midnight_utc(story: Story, clock: Clock) -> None:
    midnight = NOON.replace(hour=0, minute=0, second=0, microsecond=0)
    for at in (-1e-6, 0, 86_400 - 1e-6, 86_400):
        clock.at = midnight + timedelta(seconds=at)
        story.fail(story.start())
    with story.catalog.read() as session:
        days = day_sums(session, first=midnight.date() - timedelta(days=1), days=3)
    assert [day.jobs_failed for day in days] == [1, 2, 1]


def test_total_adds_its_days_up(catalog: Catalog, jobs: list[FlatJob]) -> None:
    with catalog.read() as session:
        days = day_sums(session, first=FIRST, days=DAYS + 1)
    total = in_all(days)
    assert total.day == FIRST
    assert total.jobs == len(jobs)
    assert total.bytes_read == sum(day.bytes_read for day in days)
    assert total.busy_seconds == sum(day.busy_seconds for day in days) > 0
    assert total.bytes_read_per_second == total.bytes_read / total.busy_seconds


def test_time_is_counted_from_the_start_to_the_completion(story: Story, clock: Clock) -> None:
    job = story.start()
    clock.advance(5)
    story.open(job, frozen())
    story.seal(job, 0)
    clock.advance(2.5)
    story.complete(job)
    with story.catalog.read() as session:
        (day,) = day_sums(session, first=NOON.date(), days=1)
    assert day.busy_seconds == pytest.approx(2.5, abs=1e-3)
    assert day.bytes_read_per_second == pytest.approx(day.bytes_read / 2.5, rel=1e-2)


def test_job_that_never_ran_is_counted_without_time(story: Story) -> None:
    story.fail(story.start())
    with story.catalog.read() as session:
        (day,) = day_sums(session, first=NOON.date(), days=1)
    assert day == DaySums(NOON.date(), jobs=1, jobs_failed=1)
    assert day.bytes_read_per_second == 0


def test_totals_are_what_is_there_now(story: Story) -> None:
    first = story.whole()
    story.whole()
    story.whole(repository="repo-other")
    story.fail(story.start())
    running = story.start()
    assert _totals(story)() == (2, 2, 3, 1, 3)
    assert _totals(story)("repo-default") == (1, 1, 2, 1, 2)
    assert _totals(story)("repo-other") == (1, 1, 1, 0, 1)
    story.fail(running)
    with story.catalog.write() as session:
        delete_job(session, first.id, cascade=True, now=NOON)
    assert _totals(story)() == (2, 2, 1, 0, 1)


def test_totals_of_an_empty_catalog_are_zeros(story: Story) -> None:
    assert _totals(story)() == (2, 0, 0, 0, 0)


def _totals(story: Story) -> Callable[..., tuple[int, ...]]:
    """Repositories, contexts, restore points, running jobs, bytes stored."""

    def totals(repository_id: str = "") -> tuple[int, ...]:
        with story.catalog.read() as session:
            found = catalog_totals(session, repository_id)
        return (
            found.repositories,
            found.contexts,
            found.restore_points,
            found.jobs_running,
            found.bytes_stored,
        )

    return totals
