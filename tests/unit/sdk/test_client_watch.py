"""Watching and waiting: streams that end, break and come back."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from sendense import BackupStatus, Client, HubUnavailable, NotFound, WaitTimeout, watching
from sendense.v1.backup_pb2 import Backup
from sendense.watching import BROKEN_STREAMS_LIMIT
from tests.unit.sdk.client_hub import ClientHub, refused

PENDING = Backup(job_id="job-1", status=1)
RUNNING = Backup(job_id="job-1", status=2)
COMPLETED = Backup(job_id="job-1", status=3)
FAILED = Backup(job_id="job-1", status=4)
GONE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def hub() -> Iterator[ClientHub]:
    with ClientHub() as hub:
        yield hub


@pytest.fixture
def client(hub: ClientHub) -> Iterator[Client]:
    with Client(hub.address, timeout_s=10) as client:
        yield client


def test_watch_yields_every_state_and_ends_with_the_last(hub, client):
    hub.state.watches = [[PENDING, RUNNING, RUNNING, COMPLETED]]
    assert [job.status for job in client.watch("job-1")] == [1, 2, 2, 3]


def test_watch_goes_on_when_the_stream_breaks(hub, client):
    hub.state.watches = [[PENDING, RUNNING, GONE], [RUNNING], [FAILED]]
    assert [job.status for job in client.watch("job-1")] == [1, 2, 2, 4]
    assert len(hub.state.requests("WatchBackup")) == 3


def test_watch_goes_on_when_the_hub_is_away_for_a_moment(hub, client):
    hub.state.watches = [[RUNNING, GONE], [GONE, COMPLETED], [COMPLETED]]
    assert [job.status for job in client.watch("job-1")] == [2, 3]


def test_watch_renews_streams_of_a_job_that_stays_as_it_is(hub, client, monkeypatch):
    monkeypatch.setattr(watching, "STREAM_LIMIT_S", 0.1)
    stay = threading.Event()

    def unchanged() -> Iterator[Backup]:
        yield PENDING
        stay.wait(20)

    renewals = BROKEN_STREAMS_LIMIT + 1
    hub.state.watches = [*(unchanged() for _ in range(renewals)), [COMPLETED]]
    assert [job.status for job in client.watch("job-1")] == [1] * renewals + [3]
    stay.set()


def test_watch_fails_when_the_hub_delivers_nothing(hub, client):
    hub.state.watches = [[]]
    with pytest.raises(HubUnavailable, match="before the job"):
        list(client.watch("job-1"))


def test_watch_fails_when_every_stream_breaks_at_once(hub, client):
    hub.state.watches = [[RUNNING, GONE] for _ in range(BROKEN_STREAMS_LIMIT + 5)]
    with pytest.raises(HubUnavailable):
        list(client.watch("job-1"))
    assert len(hub.state.requests("WatchBackup")) == BROKEN_STREAMS_LIMIT


def test_watch_names_an_unknown_job(hub, client):
    hub.state.failures["WatchBackup"] = [refused("job nope does not exist")]
    with pytest.raises(NotFound) as caught:
        list(client.watch("nope"))
    assert caught.value.reason == "JOB_NOT_FOUND"


def test_watch_ends_the_call_when_the_reader_leaves(hub, client):
    stay = threading.Event()

    def endless() -> Iterator[Backup]:
        yield RUNNING
        stay.wait(20)

    hub.state.watches = [endless()]
    watch = client.watch("job-1")
    assert next(watch).status == 2
    watch.close()
    assert hub.state.stream_ended.wait(10)
    stay.set()


@pytest.mark.parametrize("last", [COMPLETED, FAILED])
def test_wait_returns_the_last_state_whatever_it_is(hub, client, last):
    hub.state.watches = [[PENDING, RUNNING, last]]
    assert client.wait("job-1", timeout_s=20) == last


def test_wait_gives_up_at_its_limit_and_leaves_the_job(hub, client):
    stay = threading.Event()

    def endless() -> Iterator[Backup]:
        yield RUNNING
        stay.wait(20)

    hub.state.watches = [endless()]
    with pytest.raises(WaitTimeout) as caught:
        client.wait("job-1", timeout_s=0.3)
    stay.set()
    assert caught.value.metadata == {"job_id": "job-1"}
    assert hub.state.requests("CancelBackup") == []


def test_only_the_last_three_states_are_ends():
    ended = [status for status in BackupStatus if status.ended]
    assert ended == [BackupStatus.COMPLETED, BackupStatus.FAILED, BackupStatus.CANCELLED]
