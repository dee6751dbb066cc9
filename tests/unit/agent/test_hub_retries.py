"""How long a disk waits for its hub, what ends the wait, and what is done again after it."""

import threading
from collections.abc import Iterator

import grpc
import pytest
from structlog.testing import capture_logs

from agent import hub_retries
from agent.ack_window import WINDOW_BYTES
from agent.cancellation import Cancellation
from agent.errors import BaseUnusable, DiskGivenUp, HubRefused, HubUnreachable, JobCancelled
from agent.hub_errors import backup_error, passes
from agent.hub_presence import HubPresence
from agent.hub_retries import HubRetries
from agent.transports.errors import NfcReadFailed
from shared.errors import SendenseError
from shared.grpc_errors import abort_with
from tests.unit.agent.disk_backups import (
    ALLOCATED,
    BEFORE,
    CHANGED,
    NOW,
    Site,
    far,
    one_disk,
)
from tests.unit.agent.drawn_disks import drawn
from tests.unit.agent.recording_hub import DEADLINE_S, Upload
from tests.unit.agent.resuming_hub import Break, FarDisk, ResumingHub, hang_up

LARGEST_FRAME_BYTES = 2 * 1024 * 1024


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_retries, "FIRST_PAUSE_S", 0.005)


@pytest.fixture
def hub() -> Iterator[ResumingHub]:
    with ResumingHub() as hub:
        yield hub


class Clock:
    """Each look at it takes ten seconds."""

    now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 10
        return self.now_s


class Hurried(HubPresence):
    """Pauses take no time; a test's clock tells what they would."""

    def pause(self, seconds: float, cancellation: Cancellation) -> None:
        cancellation.check()


def refuse() -> None:
    raise HubUnreachable("nobody listens")


def test_hub_that_stays_away_ends_the_job_with_what_to_do() -> None:
    clock = Clock()
    retries = HubRetries("Hard disk 2", Hurried(), 1800, Cancellation(), clock)
    with capture_logs() as logs, pytest.raises(DiskGivenUp) as caught:
        retries.run(refuse)
    assert 1800 <= clock.now_s < 1900
    told = backup_error(caught.value)
    assert told.reason == "HUB_UNREACHABLE"
    for part in ("Hard disk 2", "nobody listens", " UTC", "1800 s", "start the backup again"):
        assert part in told.message
    # One hub that is away is one line, however often it is tried.
    assert [log["event"] for log in logs] == ["disk_upload_broke"]


def test_progress_gives_all_the_time_again() -> None:
    clock, attempts = Clock(), []
    retries = HubRetries("Hard disk 2", Hurried(), 100, Cancellation(), clock)

    def attempt() -> None:
        attempts.append(clock.now_s)
        if len(attempts) in (3, 6, 9):
            retries.progressed()
        if len(attempts) < 12:
            refuse()

    retries.run(attempt)
    assert clock.now_s > 200


def test_hub_that_is_gone_for_good_ends_the_job(hub: ResumingHub) -> None:
    hub.breaks = [Break(2, lambda context: threading.Thread(target=hub.close).start())]
    with one_disk(hub, Site(far(NOW)), hub_s=0.5) as disk, pytest.raises(DiskGivenUp):
        disk.run(ALLOCATED)
    assert hub.breaks[0].fired


def test_hub_that_opens_and_breaks_for_ever_is_given_up(hub: ResumingHub) -> None:
    hub.breaks = [Break(0) for _ in range(100_000)]
    with one_disk(hub, Site(far(NOW)), hub_s=0.5) as disk, pytest.raises(DiskGivenUp):
        disk.run(ALLOCATED)
    assert len(hub.calls) > 1


def test_hub_that_comes_back_on_its_port_gets_the_rest() -> None:
    now = far(NOW)
    first = ResumingHub()
    seconds: list[ResumingHub] = []
    site = Site(now)

    def restart() -> None:
        first.close()
        second = ResumingHub(first.port)
        second.layer = first.layer
        seconds.append(second)

    first.breaks = [Break(3, lambda context: threading.Thread(target=restart).start())]
    with one_disk(first, site) as disk:
        disk.run(ALLOCATED)
    with seconds[0] as second:
        assert second.restored(FarDisk(now.start, bytes(len(now.data)))) == now.data


def test_cancellation_ends_the_pause_at_once(
    hub: ResumingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_retries.HubRetries, "_wait_s", lambda self, state: 3600.0)
    pause, pausing = HubPresence.pause, threading.Event()

    def told(self: HubPresence, seconds: float, cancellation: Cancellation) -> None:
        pausing.set()
        pause(self, seconds, cancellation)

    monkeypatch.setattr(HubPresence, "pause", told)
    hub.breaks = [Break(1)]
    site = Site(far(NOW))
    with one_disk(hub, site, hub_s=7200) as disk:

        def cancel() -> None:
            assert pausing.wait(DEADLINE_S)
            # Nothing of the host is held while the hub is away.
            assert site.readers and all(reader.closed for reader in site.readers)
            disk.cancellation.cancel(JobCancelled("enough"))

        threading.Thread(target=cancel).start()
        with pytest.raises(JobCancelled, match="enough"):
            disk.run(ALLOCATED)


def test_pause_ends_when_the_hub_comes_back(
    hub: ResumingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_retries.HubRetries, "_wait_s", lambda self, state: 3600.0)
    pause = HubPresence.pause

    def back(self: HubPresence, seconds: float, cancellation: Cancellation) -> None:
        timer = threading.Timer(0.05, self.came)
        timer.start()
        pause(self, seconds, cancellation)

    monkeypatch.setattr(HubPresence, "pause", back)
    hub.breaks = [Break(1)]
    with one_disk(hub, Site(far(NOW))) as disk:
        disk.run(ALLOCATED)
    assert len(hub.calls) == 2


def test_error_of_the_host_is_not_tried_again(hub: ResumingHub) -> None:
    site = Site(FarDisk(0, drawn(NOW)))
    site.reader_options = [{"fail_at": {2: NfcReadFailed("esx", "a.vmdk", 7, 9, "medium error")}}]
    with one_disk(hub, site) as disk, pytest.raises(NfcReadFailed):
        disk.run(ALLOCATED)
    assert len(site.readers) == len(hub.calls) == 1


def test_planning_that_breaks_is_done_again_and_warns_once(hub: ResumingHub) -> None:
    now, before = far(NOW), far(BEFORE)
    hub.bases["job-1", 1] = before  # type: ignore[assignment]
    site = Site(now)
    # Tracking tells of the first extent alone: the sample finds what it missed.
    site.changed = [type(site.changed[0])(now.start, 1 << 21)]
    broken: list[object] = []

    def break_once(request: object, context: grpc.ServicerContext) -> None:
        # The sample's question, after the one for the plan, finds the line dead.
        if len(hub.digests_asked) == 3 and not broken:
            broken.append(request)
            hang_up(context)

    hub.before_digests = break_once
    with one_disk(hub, site) as disk:
        disk.run(CHANGED)
    assert broken
    assert hub.restored(before) == now.data
    codes = [warning.code for warning in disk.warnings.messages()]
    assert len(codes) == len(set(codes))
    finish = hub.calls[-1].finish
    assert finish is not None
    differing = sum(
        now.data[at : at + 65536] != before.data[at : at + 65536]
        for at in range(1 << 21, len(now.data), 65536)
    )
    assert finish.clusters_missed == differing


def test_missed_changes_count_once_when_they_are_sent_twice(hub: ResumingHub) -> None:
    now, before = far(NOW), far(BEFORE)
    hub.bases["job-1", 1] = before  # type: ignore[assignment]
    hub.durable_every = 100
    hub.breaks = [Break(3), Break(4)]
    site = Site(now)
    site.changed = [type(site.changed[0])(now.start, 1 << 21)]
    with one_disk(hub, site) as disk:
        disk.run(CHANGED)
    differing = sum(
        now.data[at : at + 65536] != before.data[at : at + 65536]
        for at in range(1 << 21, len(now.data), 65536)
    )
    finish = hub.calls[-1].finish
    assert finish is not None and finish.clusters_missed == differing


def test_no_more_than_the_window_is_sent_twice(hub: ResumingHub) -> None:
    hub.durable_every = 1 << 30
    full = threading.Event()

    def hold(upload: Upload, context: grpc.ServicerContext) -> None:
        sent = sum(batch.payload_bytes for batch in upload.batches)
        if sent > WINDOW_BYTES - 2 * LARGEST_FRAME_BYTES and not full.is_set():
            full.set()
            hub.durable_every = 1
            hang_up(context)

    hub.before_frame = hold
    site = Site(FarDisk(0, drawn("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 50)))
    with one_disk(hub, site) as disk, capture_logs() as logs:
        disk.run(ALLOCATED)
    assert full.is_set()
    (resumed,) = [log for log in logs if log["event"] == "disk_upload_resumed"]
    finish = hub.calls[-1].finish
    assert finish is not None
    assert WINDOW_BYTES // 2 < resumed["bytes_resent"] <= WINDOW_BYTES + LARGEST_FRAME_BYTES
    resent = hub.payload_bytes_received - finish.payload_bytes
    assert 0 < resent <= resumed["bytes_resent"]
    assert hub.calls[-1].open.payload_bytes_sent == resumed["bytes_resent"]


class Sealed(SendenseError):
    code = "DISK_NOT_UPLOADABLE"
    status = grpc.StatusCode.FAILED_PRECONDITION
    text = "the disk is sealed"


def test_disk_that_an_earlier_run_sealed_is_not_planned_again(hub: ResumingHub) -> None:
    with one_disk(hub, Site(far(NOW))) as disk:
        disk.run(ALLOCATED)
    hub.before_digests = lambda request, context: abort_with(context, Sealed())
    with one_disk(hub, Site(far(NOW))) as disk:
        assert hub.layer is not None
        hub.layer.plan_digest = b""
        hub._layer_for = lambda opening: hub.layer  # type: ignore[method-assign,assignment,return-value]
        disk.run(CHANGED)
        hub.layer.sealed = False
        with pytest.raises(HubRefused, match="sealed"):
            disk.run(CHANGED)


def test_only_what_the_hub_says_of_itself_passes() -> None:
    assert passes(HubUnreachable("x"))
    assert passes(HubRefused("HUB_STOPPING", "x", retryable=True))
    assert not passes(HubRefused("JOB_ENDED", "x"))
    assert not passes(BaseUnusable("LAYER_DAMAGED", "x"))
    assert not passes(JobCancelled("x"))
