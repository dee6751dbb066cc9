"""A restore point is read or deleted, never both."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import grpc
import pytest
from sqlalchemy import Connection, event

from hub.errors import CatalogUnavailable, RestoreRunning, RestoreStalled
from hub.jobs.reads import ActiveReads
from hub.jobs.turns import Turns
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import restore_pb2
from tests.unit.hub.fake_agent import FakeAgent, raw_bytes
from tests.unit.hub.jobs.backups import backed_up, delete, delete_context, job_ids
from tests.unit.hub.running_hub import RunningHub, refusal, refused

WAIT_S = 30
Code = grpc.StatusCode
# More than the connection's buffers hold, and it does not shrink.
LARGE = "R" * 400


@contextmanager
def restoring(hub: RunningHub, job_id: str) -> Iterator[Any]:
    """A restore that has sent its header, and waits for its client to take more."""
    request = restore_pb2.RestoreDiskRequest(job_id=job_id)
    call = hub.restores.RestoreDisk(request, timeout=3 * WAIT_S)
    assert next(call).header.job_id == job_id
    try:
        yield call
    finally:
        call.cancel()
        wait_until_no_read(hub)


def wait_until_no_read(hub: RunningHub) -> None:
    deadline, pause = time.monotonic() + WAIT_S, Event()
    while hub.parts.reads.count():
        assert time.monotonic() < deadline, "a restore goes on"
        pause.wait(0.01)


def test_restore_point_that_is_being_read_is_not_deleted(hub: RunningHub, agent: FakeAgent) -> None:
    full = backed_up(hub, agent, LARGE, 1)
    newest = backed_up(hub, agent, "A" + 399 * ".", 2)
    files = hub.files()
    with restoring(hub, newest.job_id) as call:
        for refuse in (
            lambda: delete(hub, newest.job_id),
            # It reads the layers below, too.
            lambda: delete(hub, full.job_id, cascade=True),
            lambda: delete_context(hub, full.context_id),
        ):
            status, reason, facts = refusal(refuse)
            assert (status, reason) == (Code.FAILED_PRECONDITION, "RESTORE_RUNNING")
            assert facts["job_id"] == newest.job_id
        assert job_ids(hub) == [newest.job_id, full.job_id]
        assert hub.files() == files
        rest = list(call)
        assert rest[-1].trailer.cluster_count == 400
    assert list(delete(hub, full.job_id, cascade=True).job_ids) == [newest.job_id, full.job_id]


def test_restore_that_was_broken_off_keeps_nothing_from_being_deleted(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = backed_up(hub, agent, LARGE, 1)
    with restoring(hub, job.job_id):
        assert refusal(lambda: delete(hub, job.job_id))[1] == "RESTORE_RUNNING"
    assert not delete(hub, job.job_id).pending_job_ids
    assert hub.files() == set()


def test_newer_backup_is_deleted_while_an_older_one_is_restored(
    hub: RunningHub, agent: FakeAgent
) -> None:
    full = backed_up(hub, agent, LARGE, 1)
    newest = backed_up(hub, agent, "A" + 399 * ".", 2)
    with restoring(hub, full.job_id) as call:
        assert list(delete(hub, newest.job_id).job_ids) == [newest.job_id]
        assert list(call)[-1].trailer.cluster_count == 400
    assert hub.restored(full.job_id) == raw_bytes(LARGE)


def test_restore_point_can_be_deleted_by_who_has_its_trailer(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = backed_up(hub, agent, "AB", 1)
    with restoring(hub, job.job_id) as call:
        while next(call).WhichOneof("part") != "trailer":
            pass
        assert not delete(hub, job.job_id).pending_job_ids


def test_restore_whose_client_takes_nothing_is_ended_and_told_why(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = backed_up(hub, agent, LARGE, 1)
    with restoring(hub, job.job_id) as call:
        hub.parts.reads.expire(WAIT_S)
        assert refusal(lambda: delete(hub, job.job_id))[1] == "RESTORE_RUNNING"
        expire_when_blocked(hub, job.job_id)
        assert not delete(hub, job.job_id).pending_job_ids
        assert hub.files() == set()
        with pytest.raises(grpc.RpcError) as stalled:
            list(call)
        assert refused(stalled.value)[:2] == (Code.DEADLINE_EXCEEDED, "RESTORE_STALLED")


def test_restore_whose_client_never_goes_on_gives_its_thread_back(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = backed_up(hub, agent, LARGE, 1)
    with restoring(hub, job.job_id) as call:
        expire_when_blocked(hub, job.job_id)
        hub.parts.reads.expire(0)
        wait_until_no_read(hub)
        with pytest.raises(grpc.RpcError) as cancelled:
            list(call)
        assert cancelled.value.code() == Code.CANCELLED
    assert backed_up(hub, agent, "AB", 2).status == pb.BACKUP_STATUS_COMPLETED


def expire_when_blocked(hub: RunningHub, job_id: str) -> None:
    """Let the restore wait for its client until it has been failed; it is not cancelled yet."""
    deadline, pause = time.monotonic() + WAIT_S, Event()
    (reading,) = hub.parts.reads._readings
    while reading.reads:
        assert time.monotonic() < deadline, "the restore does not wait for its client"
        pause.wait(0.01)
        # A part that is taken goes in less; twice as long is not waited in between.
        reading.expire(0.5)
    assert reading.job_id == job_id


def test_reading_fails_only_while_its_client_is_to_take_a_part() -> None:
    reads, cancelled = ActiveReads(), Event()
    with reads.reading("a", cancelled.set) as reading:
        reads.expire(-1)
        assert reading.reads
        with reading.giving():
            reads.expire(1000)
        with pytest.raises(RestoreStalled, match="the restore of a was ended"), reading.giving():
            reads.expire(-1)
        with reads.closed_for(["a"]):
            pass
    assert cancelled.is_set()


@pytest.mark.parametrize("committed", [True, False])
def test_restore_that_begins_during_a_deletion_waits_for_its_end(
    hub: RunningHub, agent: FakeAgent, committed: bool
) -> None:
    job = backed_up(hub, agent, "AB", 1)
    at_commit, go_on = Event(), Event()

    def hold(connection: Connection) -> None:
        if not at_commit.is_set():
            at_commit.set()
            assert go_on.wait(WAIT_S)
            if not committed:
                connection.exec_driver_sql("ROLLBACK")
                raise ZeroDivisionError("a defect")

    engine = hub.parts.catalog.engine
    event.listen(engine, "commit", hold)
    try:
        with ThreadPoolExecutor(2) as pool:
            deleting = pool.submit(delete, hub, job.job_id)
            assert at_commit.wait(WAIT_S)
            restoring = pool.submit(hub.restored, job.job_id)
            with pytest.raises(TimeoutError):
                restoring.result(0.3)
            go_on.set()
            if committed:
                assert list(deleting.result(WAIT_S).job_ids) == [job.job_id]
                with pytest.raises(grpc.RpcError) as gone:
                    restoring.result(WAIT_S)
                assert refused(gone.value)[:2] == (Code.NOT_FOUND, "JOB_NOT_FOUND")
            else:
                assert restoring.result(WAIT_S) == raw_bytes("AB")
                with pytest.raises(grpc.RpcError):
                    deleting.result(WAIT_S)
                assert hub.get(job.job_id).status == pb.BACKUP_STATUS_COMPLETED
    finally:
        event.remove(engine, "commit", hold)


def test_reads_and_deletions_of_a_job_are_counted() -> None:
    reads = ActiveReads()
    with reads.reading("a"), reads.reading("a"):
        assert reads.count() == 2
        with pytest.raises(RestoreRunning, match="a"), reads.closed_for(["b", "a"]):
            pass
        with reads.closed_for(["b"]), reads.reading("a"):
            assert reads.count() == 3
        # What was refused has closed nothing.
        with reads.reading("b"):
            pass
    assert reads.count() == 0
    with reads.closed_for(["a", "b"]):
        with reads.closed_for(["a"]):
            pass
        with pytest.raises(CatalogUnavailable), reads.reading("a", timeout_s=0.01):
            pass
    with reads.reading("a"):
        pass


def test_turn_is_of_one_at_a_time_and_ends_with_an_error() -> None:
    turns = Turns()
    with (
        turns.turn("a"),
        turns.turn("b"),
        pytest.raises(CatalogUnavailable, match="a is still"),
        turns.turn("a", timeout_s=0.01),
    ):
        pass
    with pytest.raises(ZeroDivisionError), turns.turn("a"):
        raise ZeroDivisionError
    with turns.turn("a", timeout_s=0.01):
        pass
