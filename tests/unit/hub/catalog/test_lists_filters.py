"""Lists of jobs, whatever is asked: the same as all jobs filtered and sorted in Python."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from hub.catalog import first_jobs
from hub.catalog.engine import Catalog
from hub.catalog.lists import JobOrder, list_contexts, list_disks, list_jobs
from hub.catalog.models import BackupJob
from hub.catalog.named_index import TableByIndex
from hub.catalog.paging import encode_token
from hub.jobs.states import BackupType, Status
from shared.errors import InvalidArgument
from tests.unit.hub.catalog.random_jobs import BEGIN, DAYS, FlatJob, add_disks, add_random_jobs
from tests.unit.hub.catalog.story import PGTEST, Story

SEED = 20251008
DAY_3, DAY_8 = BEGIN + timedelta(days=3), BEGIN + timedelta(days=8)
PERIODS = [(None, None), (DAY_3, DAY_8), (None, DAY_3)]
FIRST = datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
# How jobs of contexts with one name are found: what there may be of each, for that.
WAYS = {
    "sorted": {},
    "growing_periods": {"SORTED_JOBS": 0},
    "walked": {"SORTED_JOBS": 0, "CONTEXTS_OF_A_RARE_NAME": 0},
    "walked_by_name": {"SORTED_JOBS": 0, "CONTEXTS_OF_A_RARE_NAME": 0, "CONTEXTS_TO_NAME": 0},
}
PLACES: list[dict[str, str]] = [
    {},
    {"repository": "default"},
    {"repository": "repo-other"},
    {"repository": "empty"},
    {"context_id": "ctx-000"},
    {"context_id": "ctx-nobody"},
    {"vm_name": "Kasse"},
    {"vm_name": "kasse"},
    {"vm_name": "Kasse", "repository": "other"},
    {"vm_name": "dc01", "context_id": "ctx-001"},
    {"repository": "other", "context_id": "ctx-002"},
]


@pytest.fixture
def jobs(catalog: Catalog) -> list[FlatJob]:
    with catalog.write() as session:
        return add_random_jobs(session, seed=SEED, contexts=24, jobs=400)


@pytest.mark.parametrize("way", WAYS)
def test_every_combination_of_filters_gives_what_fits_in_order(
    catalog: Catalog, jobs: list[FlatJob], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(first_jobs, name, value)
    places = PLACES if way == "sorted" else [one for one in PLACES if "vm_name" in one]
    seen = 0
    with catalog.read() as session:
        for place, status, kind, (since, until), order in itertools.product(
            places,
            [None, Status.COMPLETED, Status.FAILED],
            [None, BackupType.FULL],
            PERIODS,
            JobOrder,
        ):
            expected = [
                job.id
                for job in sorted(
                    jobs,
                    key=lambda job: (job.created_at, job.id),
                    reverse=order is JobOrder.NEWEST_FIRST,
                )
                if _is_at(job, place)
                and status in (None, job.status)
                and kind in (None, job.backup_type)
                and (since is None or job.created_at >= since)
                and (until is None or job.created_at < until)
            ]
            filters = {
                **place,
                "status": status,
                "backup_type": kind,
                "created_after": since,
                "created_before": until,
                "order": order,
            }
            # A first page, one from the middle on, and the end.
            for begin in {0, len(expected) // 2, max(0, len(expected) - 3)}:
                token = ""
                if begin:
                    last = next(job for job in jobs if job.id == expected[begin - 1])
                    token = encode_token(order, last.created_at.isoformat(), last.id)
                page, more = list_jobs(session, page_size=7, page_token=token, **filters)  # type: ignore[arg-type]
                assert [job.id for job in page] == expected[begin : begin + 7], filters
                assert bool(more) is (len(expected) > begin + 7), filters
            seen += len(expected)
    assert seen > 1000  # it was no comparison of nothing with nothing


@pytest.mark.parametrize("order", JobOrder)
def test_pages_hold_each_job_once_though_many_were_created_at_one_time(
    catalog: Catalog, jobs: list[FlatJob], order: JobOrder
) -> None:
    assert len({job.created_at for job in jobs}) < len(jobs) * 3 / 4
    for filters in ({}, {"vm_name": "Kasse"}, {"repository": "other"}):
        pages = list(_pages(catalog, order=order, page_size=11, **filters))
        wanted = [job for job in jobs if _is_at(job, filters)]
        wanted.sort(
            key=lambda job: (job.created_at, job.id), reverse=order is JobOrder.NEWEST_FIRST
        )
        assert [job for page in pages for job in page] == [job.id for job in wanted]
        assert all(len(page) == 11 for page in pages[:-1])


def test_long_page_is_put_together_of_several_questions(
    catalog: Catalog, jobs: list[FlatJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.catalog.lists.KEYS_AT_ONCE", 50)
    pages = list(_pages(catalog, page_size=1000))
    assert pages == [[job.id for job in sorted(jobs, key=lambda j: (j.created_at, j.id))][::-1]]


def test_job_that_is_created_between_two_pages_moves_no_other(
    story: Story, jobs: list[FlatJob]
) -> None:
    with story.catalog.read() as session:
        first, token = list_jobs(session, page_size=10)
        expected, _ = list_jobs(session, page_size=10, page_token=token)
    story.start(replace(PGTEST, name="Kasse"))
    with story.catalog.read() as session:
        second, _ = list_jobs(session, page_size=10, page_token=token)
    assert [job.id for job in second] == [job.id for job in expected]
    assert not {job.id for job in first} & {job.id for job in second}


def test_token_of_another_order_is_refused(catalog: Catalog, jobs: list[FlatJob]) -> None:
    with catalog.read() as session:
        _, token = list_jobs(session, page_size=10)
        with pytest.raises(InvalidArgument) as refused:
            list_jobs(session, order=JobOrder.OLDEST_FIRST, page_token=token)
    assert refused.value.field == "page_token"


@pytest.mark.parametrize("length", [timedelta(0), timedelta(seconds=-1)], ids=str)
def test_period_that_ends_before_it_begins_is_refused(catalog: Catalog, length: timedelta) -> None:
    with catalog.read() as session, pytest.raises(InvalidArgument) as refused:
        list_jobs(session, created_after=BEGIN, created_before=BEGIN + length)
    assert refused.value.field == "created_after"


@pytest.mark.parametrize("at", [FIRST, LAST], ids=["first", "last"])
@pytest.mark.parametrize("way", WAYS)
def test_page_behind_any_time_is_no_error(
    catalog: Catalog,
    jobs: list[FlatJob],
    way: str,
    at: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(first_jobs, name, value)
    count = sum(job.vm_name == "Kasse" for job in jobs)
    with catalog.read() as session:
        for order in JobOrder:
            token = encode_token(order, at.isoformat(), "x")
            page, _ = list_jobs(
                session, vm_name="Kasse", order=order, page_token=token, page_size=500
            )
            all_of_them = (at is LAST) is (order is JobOrder.NEWEST_FIRST)
            assert len(page) == (count if all_of_them else 0)


def test_contexts_are_listed_by_every_combination_of_filters(
    catalog: Catalog, jobs: list[FlatJob]
) -> None:
    with catalog.read() as session:
        everything, _ = list_contexts(session)
        assert len(everything) == 24
        keys = [(row.vm_name, row.context_id) for row in everything]
        assert keys == sorted(keys)
        for name, place, site in itertools.product(
            ["", "Kasse", "nobody"], ["", "repo-default", "empty"], ["", "rom", "moon"]
        ):
            expected = [
                row.context_id
                for row in everything
                if name in ("", row.vm_name)
                and place in ("", row.repository_id)
                and site in ("", row.site)
            ]
            found: list[str] = []
            token = ""
            while True:
                page, token = list_contexts(
                    session,
                    vm_name=name,
                    repository=place,
                    site=site,
                    page_size=3,
                    page_token=token,
                )
                found += [row.context_id for row in page]
                if not token:
                    break
            assert found == expected


def test_disks_are_paged_over_jobs_that_have_none(catalog: Catalog, jobs: list[FlatJob]) -> None:
    with catalog.write() as session:
        added = add_disks(session, jobs, seed=SEED)
        context_id = jobs[0].context_id
        runs = {
            job.id: job.run_number
            for job in session.query(BackupJob).filter_by(vm_backup_context_id=context_id)
        }
    expected = sorted((key for key in added if key[0] in runs), key=lambda k: (-runs[k[0]], k[1]))
    for page_size in (1, 2, 7, 1000):
        found: list[tuple[str, int]] = []
        token = ""
        with catalog.read() as session:
            while True:
                page, token = list_disks(
                    session, context_id=context_id, page_size=page_size, page_token=token
                )
                found += [(disk.backup_job_id, disk.disk_index) for disk in page]
                if not token:
                    break
        assert found == expected


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
def test_page_is_found_in_an_index_alone_on_sqlite(catalog: Catalog, jobs: list[FlatJob]) -> None:
    asked: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, values: Any, *_: object) -> None:
        if "INDEXED BY" in statement:
            asked.append((statement, values))

    event.listen(catalog.engine, "before_cursor_execute", note)
    with catalog.read() as session:
        for place, status in itertools.product(PLACES, [None, Status.FAILED]):
            list_jobs(session, status=status, **place)  # type: ignore[arg-type]
    event.remove(catalog.engine, "before_cursor_execute", note)
    with catalog.engine.connect() as connection:
        plans = [
            row[3]
            for statement, values in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            if "backup_jobs" in row[3]
        ]
    assert len(plans) > len(PLACES)
    assert {plan.partition("INDEX")[0] for plan in plans} == {"SEARCH backup_jobs USING COVERING "}
    # By the order of the index up to the creation time, or all of a context.
    assert all(
        "(status=? AND backup_type=?" in plan
        or "(repository_id=? AND status=? AND backup_type=?" in plan
        or "(vm_backup_context_id=?" in plan
        for plan in plans
    )


@pytest.mark.parametrize(
    "engine_name", [pytest.param("mariadb", marks=pytest.mark.mariadb)], indirect=True
)
def test_page_reads_few_rows_on_mariadb(catalog: Catalog) -> None:
    with catalog.write() as session:
        add_random_jobs(session, seed=SEED, contexts=24, jobs=5000)
    middle = encode_token(
        JobOrder.NEWEST_FIRST, (BEGIN + timedelta(days=DAYS / 2)).isoformat(), "x"
    )
    with catalog.read() as session:

        def rows_read() -> int:
            found = session.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'"))
            return sum(int(row[1]) for row in found)

        for place, status, token in itertools.product(
            PLACES[:5], [None, Status.FAILED], ["", middle]
        ):
            before = rows_read()
            page, _ = list_jobs(session, status=status, page_size=10, page_token=token, **place)  # type: ignore[arg-type]
            # Ten ranges with eleven entries each, read twice to be sorted, and the rows.
            assert rows_read() - before < 600, (place, status, token, len(page))


def test_index_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        TableByIndex(BackupJob.metadata.tables["backup_jobs"], "ix_backup_jobs_nothing")


def _is_at(job: FlatJob, place: dict[str, str]) -> bool:
    return (
        place.get("vm_name", job.vm_name) == job.vm_name
        and place.get("context_id", job.context_id) == job.context_id
        and place.get("repository", job.repository_id).removeprefix("repo-")
        == job.repository_id.removeprefix("repo-")
    )


def _pages(catalog: Catalog, **filters: object) -> Iterator[list[str]]:
    token = ""
    while True:
        with catalog.read() as session:
            page, token = list_jobs(session, page_token=token, **filters)  # type: ignore[arg-type]
        yield [job.id for job in page]
        if not token:
            return
