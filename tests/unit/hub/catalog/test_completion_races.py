"""After a race, a deadlock, a lost connection or a restart, all rows of a completion moved or none.

Driven through the edge that the hub itself uses, `hub.jobs.complete`. What goes
wrong is done to the real server, at one statement of the transaction.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from hub.catalog.complete_job import complete_job
from hub.catalog.engine import Catalog
from hub.catalog.models import BackupJob
from hub.catalog.queries import find_job
from hub.errors import BackupRunning, CatalogUnavailable
from hub.jobs.complete import complete_backup
from hub.jobs.parts import Parts
from hub.jobs.repositories import create_repository
from hub.jobs.states import Status
from tests.mariadb_server import MariadbServer
from tests.unit.hub.catalog.conftest import Clock
from tests.unit.hub.catalog.engines import on_mariadb
from tests.unit.hub.catalog.faults import (
    DEADLOCK,
    LOCK_TIMEOUT,
    LOST,
    errors_of,
    impatient,
    once,
    once_at_commit,
)
from tests.unit.hub.catalog.story import Story, frozen

WAIT_S = 30
# The completion's statements that lock or change rows, in order.
STEPS = (
    "FOR UPDATE",
    "UPDATE backup_disks",
    "SELECT sum(",
    "UPDATE backup_jobs",
    "UPDATE vm_backup_contexts",
)
NOT_MOVED = (Status.RUNNING, {Status.RUNNING}, 0, None)


@pytest.fixture
def parts(catalog: Catalog, clock: Clock) -> Parts:
    return Parts(catalog, now=clock)


@pytest.fixture
def sealed(parts: Parts, story: Story, tmp_path: Path) -> BackupJob:
    """A running job of two disks, all sealed, in a repository that has its folder."""
    repository = create_repository(parts, name="real", path=str(tmp_path / "real"), default=False)
    job = story.start(repository=repository.id)
    # As its uploads make it.
    (tmp_path / "real" / job.vm_backup_context_id / job.id).mkdir(parents=True)
    story.open(job, frozen(0), frozen(1))
    story.seal(job, 0)
    story.seal(job, 1)
    assert rows(story, job) == NOT_MOVED
    return job


def rows(story: Story, job: BackupJob) -> tuple[Status, set[Status], int, str | None]:
    """What a completion moves: job, disks, the context's counter and last backup."""
    now = story.job(job)
    return (
        now.status,
        {disk.status for disk in now.disks},
        now.context.successful_backups,
        now.context.last_backup_id,
    )


def moved(job: BackupJob) -> tuple[Status, set[Status], int, str | None]:
    return (Status.COMPLETED, {Status.COMPLETED}, 1, job.id)


def test_two_completions_at_once_move_the_rows_once(
    parts: Parts, story: Story, sealed: BackupJob
) -> None:
    barrier = threading.Barrier(4)

    def complete() -> None:
        barrier.wait(WAIT_S)
        complete_backup(parts, sealed.id, [])

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(complete) for _ in range(4)]:
            done.result(WAIT_S)
    assert rows(story, sealed) == moved(sealed)


def test_completion_that_comes_second_waits_and_changes_nothing(
    catalog: Catalog, story: Story, sealed: BackupJob
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with catalog.write() as session:
            assert complete_job(session, sealed.id, warnings=[], now=story.now())
            second = pool.submit(story.complete, sealed)
            with pytest.raises(TimeoutError):
                second.result(0.3)
            assert rows(story, sealed) == NOT_MOVED  # for everybody else
        assert second.result(WAIT_S) is False
    assert rows(story, sealed) == moved(sealed)


def test_end_that_comes_while_a_job_completes_changes_nothing(
    catalog: Catalog, story: Story, sealed: BackupJob
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with catalog.write() as session:
            assert complete_job(session, sealed.id, warnings=[], now=story.now())
            end = pool.submit(story.fail, sealed)
            with pytest.raises(TimeoutError):
                end.result(0.3)
        assert end.result(WAIT_S) is False
    assert rows(story, sealed) == moved(sealed)
    assert story.context(sealed).failed_backups == 0


@on_mariadb
def test_start_and_end_of_a_job_at_once_never_deadlock(
    catalog: Catalog, story: Story, sealed: BackupJob
) -> None:
    """A refused start looks at the index entry of the very job that a completion changes."""
    barrier = threading.Barrier(4)

    def start() -> None:
        barrier.wait(WAIT_S)
        for _ in range(5):
            try:
                story.start(repository=sealed.repository_id)
            except BackupRunning:
                continue

    def complete() -> bool:
        barrier.wait(WAIT_S)
        return story.complete(sealed)

    with errors_of(catalog) as numbers, ThreadPoolExecutor(4) as pool:
        starts = [pool.submit(start) for _ in range(3)]
        assert pool.submit(complete).result(WAIT_S)
        for one in starts:
            one.result(WAIT_S)
    assert DEADLOCK not in numbers
    assert story.job(sealed).status is Status.COMPLETED


@on_mariadb
def test_completion_that_lost_a_deadlock_is_done_again(
    catalog: Catalog, parts: Parts, story: Story, sealed: BackupJob, mariadb: MariadbServer
) -> None:
    with (
        errors_of(catalog) as numbers,
        ThreadPoolExecutor(1) as pool,
        catalog.engine.connect() as other,
    ):
        # The server ends the transaction that changed less.
        for number in range(50):
            other.execute(
                text(
                    "INSERT INTO agents (id, site, hostname, version, vsphere_address, "
                    "vsphere_full_name, vsphere_api_type, vsphere_api_version, connected_since, "
                    "last_seen_at, created_at) VALUES "
                    "(:id, :id, '', '', '', '', '', '', NULL, NULL, '2025-01-01')"
                ),
                {"id": f"agent-{number}"},
            )
        other.execute(text("SELECT id FROM backup_disks FOR UPDATE")).all()
        completion = pool.submit(complete_backup, parts, sealed.id, [])
        waits = Retrying(
            retry=retry_if_result(lambda found: not found),
            stop=stop_after_delay(WAIT_S),
            wait=wait_fixed(0.2),  # asked more often, the table is never brought up to date
        )
        assert waits(
            mariadb.run,
            "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
        )
        other.execute(text("SELECT context_id FROM vm_backup_contexts FOR UPDATE")).all()
        assert rows(story, sealed) == NOT_MOVED
        other.rollback()
        completion.result(WAIT_S)
    assert numbers == [DEADLOCK]
    assert rows(story, sealed) == moved(sealed)


@on_mariadb
def test_completion_that_waited_too_long_for_a_lock_is_done_again(
    catalog: Catalog, parts: Parts, story: Story, sealed: BackupJob
) -> None:
    with catalog.engine.connect() as other:
        other.execute(text("SELECT id FROM backup_jobs FOR UPDATE")).all()
        with impatient(catalog), errors_of(catalog, then=other.rollback) as numbers:
            complete_backup(parts, sealed.id, [])
    assert numbers == [LOCK_TIMEOUT]
    assert rows(story, sealed) == moved(sealed)


@on_mariadb
@pytest.mark.parametrize("step", STEPS)
def test_connection_killed_at_any_statement_leaves_no_row_moved(
    catalog: Catalog, story: Story, sealed: BackupJob, mariadb: MariadbServer, step: str
) -> None:
    with (
        once(catalog, step, lambda own: mariadb.run("KILL CONNECTION %s", own.thread_id())),
        errors_of(catalog) as numbers,
        pytest.raises(CatalogUnavailable),
    ):
        story.complete(sealed)
    assert set(numbers) <= LOST
    assert rows(story, sealed) == NOT_MOVED
    assert story.complete(sealed)
    assert rows(story, sealed) == moved(sealed)


@on_mariadb
@pytest.mark.parametrize("answer_lost", [False, True], ids=["before", "after"])
def test_connection_killed_around_the_commit_completes_once(
    catalog: Catalog,
    parts: Parts,
    story: Story,
    sealed: BackupJob,
    mariadb: MariadbServer,
    answer_lost: bool,
) -> None:
    def kill(own: Any) -> None:
        if answer_lost:
            own.commit()
        mariadb.run("KILL CONNECTION %s", own.thread_id())

    with once_at_commit(catalog, kill), errors_of(catalog) as numbers:
        complete_backup(parts, sealed.id, [])
    assert numbers
    assert set(numbers) <= LOST
    assert rows(story, sealed) == moved(sealed)


@on_mariadb
def test_completion_goes_on_when_the_server_crashed_and_came_back(
    catalog: Catalog, parts: Parts, story: Story, sealed: BackupJob, mariadb: MariadbServer
) -> None:
    def restart(own: Any) -> None:
        mariadb.kill()
        mariadb.start()
        assert rows(story, sealed) == NOT_MOVED

    with once(catalog, "UPDATE vm_backup_contexts", restart):
        complete_backup(parts, sealed.id, [])
    assert rows(story, sealed) == moved(sealed)


@on_mariadb
def test_completion_stays_when_the_server_restarts(
    catalog: Catalog, story: Story, sealed: BackupJob, mariadb: MariadbServer
) -> None:
    assert story.complete(sealed)
    mariadb.stop()
    with pytest.raises(CatalogUnavailable):
        rows(story, sealed)
    mariadb.start()
    assert rows(story, sealed) == moved(sealed)
    assert not story.complete(sealed)


def test_read_sees_one_moment_while_a_job_completes(
    catalog: Catalog, story: Story, sealed: BackupJob
) -> None:
    with catalog.read() as session:
        assert find_job(session, sealed.id).status is Status.RUNNING
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(story.complete, sealed).result(WAIT_S) is True
        job = find_job(session, sealed.id, with_disks=True)
        assert [job.status, *(disk.status for disk in job.disks)] == [Status.RUNNING] * 3
    assert rows(story, sealed) == moved(sealed)


@on_mariadb
@pytest.mark.parametrize("restarted", [False, True])
def test_end_of_a_job_never_waits_for_its_repository(
    catalog: Catalog, story: Story, sealed: BackupJob, mariadb: MariadbServer, restarted: bool
) -> None:
    """A start and a deletion hold it while they wait for the context: they would deadlock."""
    if restarted:
        # Which index a foreign key is checked by is decided anew.
        mariadb.stop()
        mariadb.start()
    with catalog.engine.connect() as other, impatient(catalog):
        other.execute(text("SELECT id FROM backup_repositories FOR UPDATE")).all()
        assert story.complete(sealed)
    assert rows(story, sealed) == moved(sealed)
