"""A backup is started once, whatever happens to the catalog's connection meanwhile.

Driven through the edge that the hub itself uses, `hub.jobs.start`, with an agent's
link that is drained by the test.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from hub.catalog.agents import AgentFacts, record_registration, set_draining
from hub.catalog.change_repositories import set_disabled
from hub.catalog.engine import Catalog
from hub.catalog.models import BackupJob, BackupRetry, VmBackupContext
from hub.catalog.repositories import find_repository
from hub.errors import AgentDraining, BackupRunning, JobNotFound, RepositoryDisabled
from hub.jobs.agent_link import AgentLink
from hub.jobs.delete import delete_backup
from hub.jobs.open import DiskToRead, open_backup
from hub.jobs.parts import Parts
from hub.jobs.repositories import create_repository
from hub.jobs.retry import retry_backup
from hub.jobs.start import BackupRequest, start_backup
from hub.jobs.states import BackupType, Event, ReadMethod, Status
from sendense.v1 import agent_session_pb2, inventory_pb2
from tests.mariadb_server import MariadbServer
from tests.unit.hub.catalog.conftest import Clock
from tests.unit.hub.catalog.engines import on_mariadb
from tests.unit.hub.catalog.faults import (
    LOCK_TIMEOUT,
    LOST,
    errors_of,
    impatient,
    once,
    once_at_commit,
)
from tests.unit.hub.catalog.story import Story, frozen

WAIT_S = 60
# Statements of the transaction that inserts a job, in order.
STEPS = (
    "FOR UPDATE",
    "INSERT INTO vm_backup_contexts",
    "UPDATE vm_backup_contexts",
    "INSERT INTO backup_jobs",
)


class Site:
    """A connected agent: what the hub told it is in `commands`."""

    def __init__(self, parts: Parts) -> None:
        self.link = AgentLink()
        self.link.site = "lab"
        facts = AgentFacts("lab", "host-1", "0.1.0", "", "", "", "")
        with parts.catalog.write() as session:
            record_registration(session, facts, parts.now())
        parts.agents.join(self.link, parts.now())
        vm = inventory_pb2.VirtualMachine(
            name="pgtest1", vmware_vm_id="vm-1", instance_uuid="uuid-1"
        )
        parts.agents.report(self.link, [vm])
        self.link.send(
            agent_session_pb2.SessionResponse(registered=agent_session_pb2.SessionRegistered())
        )

    def told(self) -> list[agent_session_pb2.SessionResponse]:
        """All commands; the link is closed then."""
        self.link.close()
        registered, *commands = self.link.commands(WAIT_S)
        assert registered.WhichOneof("command") == "registered"
        return commands


@pytest.fixture
def parts(catalog: Catalog, clock: Clock, tmp_path: Path) -> Parts:
    parts = Parts(catalog, now=clock)
    create_repository(parts, name="real", path=str(tmp_path / "real"), default=False)
    return parts


@pytest.fixture
def site(parts: Parts) -> Site:
    return Site(parts)


def request(request_id: str = "") -> BackupRequest:
    return BackupRequest("pgtest1", repository="real", request_id=request_id)


def real_id(catalog: Catalog) -> str:
    with catalog.read() as session:
        return find_repository(session, "real").id


def all_jobs(catalog: Catalog) -> list[BackupJob]:
    with catalog.read() as session:
        return list(session.query(BackupJob).order_by(BackupJob.run_number))


def require_started_once(catalog: Catalog, site: Site, job: BackupJob) -> None:
    (row,) = all_jobs(catalog)
    assert (row.id, row.status, row.run_number) == (job.id, Status.PENDING, 1)
    assert row.context.total_backups_run == 1
    assert [command.start_job.job_id for command in site.told()] == [job.id]


@on_mariadb
@pytest.mark.parametrize("step", STEPS)
def test_connection_killed_at_any_statement_starts_one_job(
    catalog: Catalog, parts: Parts, site: Site, mariadb: MariadbServer, step: str
) -> None:
    def kill(own: Any) -> None:
        mariadb.run("KILL CONNECTION %s", own.thread_id())

    with once(catalog, step, kill), errors_of(catalog) as numbers:
        job = start_backup(parts, request())
    assert numbers
    assert set(numbers) <= LOST
    require_started_once(catalog, site, job)


@on_mariadb
@pytest.mark.parametrize("request_id", ["", "nightly-1"], ids=["no-id", "an-id"])
@pytest.mark.parametrize("answer_lost", [False, True], ids=["before", "after"])
def test_connection_killed_around_the_commit_starts_one_job(
    catalog: Catalog,
    parts: Parts,
    site: Site,
    mariadb: MariadbServer,
    answer_lost: bool,
    request_id: str,
) -> None:
    def kill(own: Any) -> None:
        if answer_lost:
            own.commit()
        mariadb.run("KILL CONNECTION %s", own.thread_id())

    with once_at_commit(catalog, kill), errors_of(catalog) as numbers:
        job = start_backup(parts, request(request_id))
    assert numbers
    assert set(numbers) <= LOST
    assert len(all_jobs(catalog)) == 1
    if request_id:
        assert start_backup(parts, request(request_id)).id == job.id
    else:
        with pytest.raises(BackupRunning) as refused:
            start_backup(parts, request())
        assert refused.value.job_id == job.id
    require_started_once(catalog, site, job)


@on_mariadb
@pytest.mark.parametrize("answer_lost", [False, True], ids=["before", "after"])
def test_opening_is_repeated_when_its_connection_is_lost(
    catalog: Catalog, parts: Parts, story: Story, mariadb: MariadbServer, answer_lost: bool
) -> None:
    base = story.whole(repository=real_id(catalog))
    job = story.start(repository=real_id(catalog), kind=BackupType.FULL)

    def kill(own: Any) -> None:
        if answer_lost:
            own.commit()
        mariadb.run("KILL CONNECTION %s", own.thread_id())

    with once_at_commit(catalog, kill), errors_of(catalog) as numbers:
        plan = open_backup(
            parts,
            job.id,
            disks=[frozen(0), frozen(1)],
            snapshot="snapshot-1",
            other_snapshots=[],
            consistency=None,
            warnings=[],
        )
    assert numbers
    assert set(numbers) <= LOST
    assert plan == [DiskToRead(index, ReadMethod.ALLOCATED) for index in range(2)]
    opened = story.job(job)
    assert (opened.status, len(opened.disks)) == (Status.RUNNING, 2)
    assert story.job(base).status is Status.COMPLETED


@on_mariadb
def test_start_that_waited_too_long_for_a_lock_is_done_again(
    catalog: Catalog, parts: Parts, site: Site
) -> None:
    with catalog.engine.connect() as other:
        other.execute(text("SELECT id FROM backup_repositories FOR UPDATE")).all()
        with impatient(catalog), errors_of(catalog, then=other.rollback) as numbers:
            job = start_backup(parts, request())
    assert numbers == [LOCK_TIMEOUT]
    require_started_once(catalog, site, job)


@on_mariadb
@pytest.mark.parametrize("answer_lost", [False, True], ids=["before", "after"])
def test_deletion_whose_answer_was_lost_is_told_as_done(
    catalog: Catalog, parts: Parts, story: Story, mariadb: MariadbServer, answer_lost: bool
) -> None:
    jobs = [story.whole(repository=real_id(catalog)) for _ in range(3)]

    def kill(own: Any) -> None:
        if answer_lost:
            own.commit()
        mariadb.run("KILL CONNECTION %s", own.thread_id())

    with once_at_commit(catalog, kill), errors_of(catalog) as numbers:
        deleted = delete_backup(parts, jobs[1].id, cascade=True)
    assert numbers
    assert set(numbers) <= LOST
    assert (deleted.job_ids, deleted.bytes_stored) == ([jobs[2].id, jobs[1].id], 2)
    assert deleted.pending_job_ids == []
    assert [job.id for job in all_jobs(catalog)] == [jobs[0].id]
    with pytest.raises(JobNotFound):
        delete_backup(parts, jobs[1].id, cascade=True)


def test_requests_with_one_id_that_race_start_one_job(
    catalog: Catalog, parts: Parts, site: Site
) -> None:
    barrier = threading.Barrier(5)

    def start() -> str:
        barrier.wait(WAIT_S)
        return start_backup(parts, request("nightly-1")).id

    with ThreadPoolExecutor(5) as pool:
        ids = {one.result(WAIT_S) for one in [pool.submit(start) for _ in range(5)]}
    (job,) = all_jobs(catalog)
    assert ids == {job.id}
    require_started_once(catalog, site, job)


def test_repeated_request_counts_no_run(story: Story) -> None:
    first = story.start(request_id="r-1")
    assert story.start(request_id="r-1", repository="repo-other").id == first.id
    assert story.context(first).total_backups_run == 1


@pytest.mark.parametrize("closed", ["disabled", "draining"])
def test_start_that_came_before_the_close_is_waited_for(
    catalog: Catalog, parts: Parts, site: Site, closed: str
) -> None:
    """Whoever was told that a repository or a site is closed sees no job start there later."""

    def close() -> None:
        with catalog.write() as session:
            if closed == "disabled":
                set_disabled(session, real_id(catalog), True)
            else:
                set_draining(session, "lab", True)

    with ThreadPoolExecutor(1) as pool:
        closing: list[Any] = []

        def begin_to_close(connection: object) -> None:
            closing.append(pool.submit(close))
            with pytest.raises(TimeoutError):
                closing[0].result(0.3)

        with once(catalog, "INSERT INTO backup_jobs", begin_to_close):
            job = start_backup(parts, request("before"))
        closing[0].result(WAIT_S)
    # One that was started before is still its request's job.
    assert start_backup(parts, request("before")).id == job.id
    error = RepositoryDisabled if closed == "disabled" else AgentDraining
    with pytest.raises(error):
        start_backup(parts, request())
    assert len(all_jobs(catalog)) == 1


def test_close_that_came_first_is_seen_by_a_start_under_way(
    catalog: Catalog, parts: Parts, site: Site, story: Story
) -> None:
    for close, error in (
        (lambda session: set_disabled(session, real_id(catalog), True), RepositoryDisabled),
        (lambda session: set_draining(session, "lab", True), AgentDraining),
    ):
        with catalog.write() as session:
            close(session)
        with pytest.raises(error):
            story.start(repository=real_id(catalog))
        with catalog.write() as session:
            set_disabled(session, real_id(catalog), False)
            set_draining(session, "lab", False)
    assert all_jobs(catalog) == []
    with catalog.read() as session:
        assert session.query(VmBackupContext).count() == 0


def test_retry_is_linked_in_the_transaction_of_its_job(
    catalog: Catalog, parts: Parts, site: Site, story: Story
) -> None:
    failed = story.start(repository=real_id(catalog), kind=BackupType.FULL)
    story.fail(failed, Event.CANCELLED)
    job = retry_backup(parts, failed.id, "again")
    assert job.retry is not None
    assert (job.retry.retry_of_job_id, job.requested_type) == (failed.id, BackupType.FULL)
    assert retry_backup(parts, failed.id, "again").id == job.id
    with catalog.read() as session:
        assert session.query(BackupRetry).count() == 1
    story.fail(job)
    # The link goes with the job that was repeated; the repeated one stays.
    delete_backup(parts, failed.id, cascade=False)
    with catalog.read() as session:
        assert session.query(BackupRetry).count() == 0
    assert story.job(job).retry is None
    with pytest.raises(JobNotFound):
        retry_backup(parts, failed.id)


def test_retry_of_a_job_that_is_deleted_meanwhile_starts_nothing(
    catalog: Catalog, parts: Parts, site: Site, story: Story
) -> None:
    failed = story.start(repository=real_id(catalog))
    story.fail(failed)
    deleted: list[Callable[[], object]] = []

    # Of its own: the transaction that is about to begin has its turn to write.
    with closing(Catalog(catalog.url.render_as_string(hide_password=False))) as other:

        def delete(connection: object) -> None:
            elsewhere = replace(parts, catalog=other)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(delete_backup, elsewhere, failed.id, cascade=False).result(WAIT_S)
            deleted.append(delete)

        # On SQLite the transaction has begun by its first statement: nobody else writes then.
        writes = "BEGIN IMMEDIATE" if catalog.is_sqlite else "FOR UPDATE"
        with once(catalog, writes, delete), pytest.raises(JobNotFound):
            retry_backup(parts, failed.id)
    assert deleted
    assert all_jobs(catalog) == []
    assert site.told() == []
