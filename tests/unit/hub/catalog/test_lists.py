import base64
from dataclasses import replace

import pytest

from hub.catalog.lists import list_contexts, list_disks, list_jobs
from hub.catalog.paging import encode_token
from hub.catalog.queries import restorable_chain
from hub.errors import (
    ContextNotFound,
    DiskNotFound,
    JobNotFound,
    NotARestorePoint,
    RepositoryNotFound,
)
from hub.jobs.states import Status
from shared.errors import InvalidArgument
from tests.unit.hub.catalog.conftest import Clock
from tests.unit.hub.catalog.story import PGTEST, Story, frozen


def test_pages_of_jobs_hold_each_job_once_newest_first(story: Story, clock: Clock) -> None:
    expected = []
    for number in range(7):
        if number % 3 == 0:
            clock.advance(1)
        job = story.start(replace(PGTEST, instance_uuid=f"u{number}"))
        expected.append((job.created_at, job.id))
    seen, token = [], ""
    while True:
        with story.catalog.read() as session:
            jobs, token = list_jobs(session, page_size=2, page_token=token)
        assert len(jobs) <= 2
        seen += [(job.created_at, job.id) for job in jobs]
        if not token:
            break
    assert seen == sorted(expected, reverse=True)


def test_jobs_are_filtered(story: Story) -> None:
    done = story.whole()
    running = story.start(replace(PGTEST, name="web", instance_uuid="u2"), repository="repo-other")

    def ids(**filters: object) -> list[str]:
        with story.catalog.read() as session:
            return [job.id for job in list_jobs(session, **filters)[0]]  # type: ignore[arg-type]

    assert ids(vm_name="web") == [running.id]
    assert ids(context_id=done.vm_backup_context_id) == [done.id]
    assert ids(status=Status.COMPLETED) == [done.id]
    assert ids(repository="other") == [running.id]
    assert ids(vm_name="nobody") == []
    with pytest.raises(RepositoryNotFound):
        ids(repository="nowhere")


@pytest.mark.parametrize(
    "paging",
    [
        {"page_size": -1},
        {"page_size": 1001},
        {"page_token": "nonsense"},
        {"page_token": "é"},
        {"page_token": encode_token(1, 2, 3)},
        {"page_token": encode_token("newest_first", "yesterday", "x")},
        {"page_token": encode_token("newest_first", "0001-01-01T00:00:00+23:59", "x")},
        {"page_token": encode_token("newest_first", "2025-01-01T00:00:00+00:00", "\ud800")},
        {"page_token": base64.urlsafe_b64encode(b"[" * 6000).decode()},
        {"page_token": base64.urlsafe_b64encode(b"[" * 100_000).decode()},
        {"page_token": encode_token("newest_first", "2025-01-01T00:00:00+00:00", "x" * 9000)},
        {"page_token": encode_token("newest_first", "2025-01-01T00:00:00", "x")},
    ],
    ids=str,
)
def test_unusable_page_is_refused(story: Story, paging: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument), story.catalog.read() as session:
        list_jobs(session, **paging)  # type: ignore[arg-type]


def test_contexts_are_listed_by_name(story: Story) -> None:
    for name in ("web", "db", "app"):
        story.start(replace(PGTEST, name=name, instance_uuid=name))
    with story.catalog.read() as session:
        first, token = list_contexts(session, page_size=2)
        second, end = list_contexts(session, page_size=2, page_token=token)
    assert [c.vm_name for c in [*first, *second]] == ["app", "db", "web"]
    assert end == ""


def test_disks_are_listed_newest_job_first(story: Story) -> None:
    first = story.whole(frozen(0), frozen(1))
    second = story.whole(frozen(0), frozen(1))
    seen, token = [], ""
    while True:
        with story.catalog.read() as session:
            disks, token = list_disks(
                session, context_id=first.vm_backup_context_id, page_size=3, page_token=token
            )
        seen += [(disk.backup_job_id, disk.disk_index) for disk in disks]
        if not token:
            break
    assert seen == [(second.id, 0), (second.id, 1), (first.id, 0), (first.id, 1)]


@pytest.mark.parametrize("number", [10**30, -(10**30), 10**4000, True, 1.5])
def test_number_in_a_token_that_no_row_can_have_is_refused(story: Story, number: int) -> None:
    job = story.whole()
    with story.catalog.read() as session, pytest.raises(InvalidArgument):
        list_disks(session, job_id=job.id, page_token=encode_token(number, 1))


def test_disks_of_nothing_are_refused(story: Story) -> None:
    with story.catalog.read() as session:
        for wrong in ({}, {"context_id": "a", "job_id": "b"}):
            with pytest.raises(InvalidArgument):
                list_disks(session, **wrong)
        with pytest.raises(ContextNotFound):
            list_disks(session, context_id="nobody")
        with pytest.raises(JobNotFound):
            list_disks(session, job_id="nobody")


def test_chain_follows_the_base_rows_down_to_the_full(story: Story) -> None:
    jobs = [story.whole(frozen(0), frozen(1)) for _ in range(3)]
    with story.catalog.read() as session:
        chain = restorable_chain(session, jobs[2].id, 1)
    assert [row.backup_job_id for row in chain] == [job.id for job in reversed(jobs)]
    assert {row.disk_index for row in chain} == {1}


def test_only_completed_jobs_are_restore_points(story: Story) -> None:
    done = story.whole()
    running = story.start()
    story.open(running)
    story.seal(running, 0)
    with story.catalog.read() as session:
        with pytest.raises(NotARestorePoint):
            restorable_chain(session, running.id, 0)
        with pytest.raises(DiskNotFound):
            restorable_chain(session, done.id, 1)
        with pytest.raises(JobNotFound):
            restorable_chain(session, "nobody", 0)
