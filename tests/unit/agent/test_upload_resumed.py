"""Uploads that break anywhere: what the hub has in the end is the disk."""

from collections.abc import Iterator

import grpc
import pytest
from structlog.testing import capture_logs

from agent import hub_retries
from agent.errors import HubMisbehaved, HubRefused
from hub.errors import (
    FrameDamaged,
    HubStopping,
    TooManyStreams,
    UploadStalled,
    UploadSuperseded,
    UploadTruncated,
)
from sendense.clusters import CLUSTER_BYTES
from sendense.v1 import backup_pb2, upload_pb2
from shared.errors import SendenseError
from shared.grpc_errors import abort_with
from tests.unit.agent.disk_backups import (
    ALLOCATED,
    BEFORE,
    CHANGED,
    COMPARED,
    NOW,
    Site,
    far,
    one_disk,
)
from tests.unit.agent.drawn_disks import drawn
from tests.unit.agent.resuming_hub import (
    AT_FINISH,
    BEFORE_OPENED,
    SEALED_UNTOLD,
    Break,
    FarDisk,
    Layer,
    ResumingHub,
    hang_up,
)

FRAMES = 5
PLACES = [BEFORE_OPENED, *range(FRAMES + 1), AT_FINISH, SEALED_UNTOLD]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_retries, "FIRST_PAUSE_S", 0.005)


@pytest.fixture
def hub() -> Iterator[ResumingHub]:
    with ResumingHub() as hub:
        yield hub


def backed_up(
    hub: ResumingHub,
    method: backup_pb2.ReadMethod,
    now: FarDisk,
    before: FarDisk | None = None,
    hub_s: float = 60.0,
) -> Site:
    """One disk, to its seal; the disk is what the hub has."""
    if before is None:
        before = FarDisk(now.start, bytes(len(now.data)))
    if method != ALLOCATED:
        hub.bases["job-1", 1] = before  # type: ignore[assignment]
    site = Site(now)
    with one_disk(hub, site, hub_s) as disk:
        disk.run(method)
    assert all(end.fired for end in hub.breaks)
    assert hub.restored(before) == now.data
    assert all(reader.closed for reader in site.readers)
    return site


@pytest.mark.parametrize("told", [True, False], ids=["acknowledged", "not acknowledged"])
@pytest.mark.parametrize("cut_bytes", [0, 512], ids=["even", "odd"])
@pytest.mark.parametrize("method", [ALLOCATED, CHANGED, COMPARED])
def test_upload_that_breaks_anywhere_goes_on_behind_what_is_durable(
    method: backup_pb2.ReadMethod, cut_bytes: int, told: bool
) -> None:
    now, before = far(NOW, cut_bytes), far(BEFORE, cut_bytes)
    unbroken = None
    for place in [None, *PLACES]:
        with ResumingHub() as hub:
            hub.acks_told = told
            hub.breaks = [] if place is None else [Break(place)]
            backed_up(hub, method, now, before if method != ALLOCATED else None)
            assert len(hub.calls) == len(hub.breaks) + 1
            assert len({call.open.plan_digest for call in hub.calls}) == 1
            assert len(hub.calls[-1].open.plan_digest) == 16
            assert len({call.open.bytes_planned for call in hub.calls}) == 1
            finish = [call.finish for call in hub.calls if call.finish is not None][-1]
            if unbroken is None:
                unbroken = finish
                assert finish.frame_count == FRAMES
                assert bool(finish.bytes_unchanged) == (method != ALLOCATED)
            assert finish == unbroken, place
            # Each frame is durable at once: what came before a break does not come again.
            assert hub.payload_bytes_received == finish.payload_bytes
            assert hub.calls[-1].open.payload_bytes_sent <= finish.payload_bytes


def test_upload_that_breaks_after_each_frame_comes_to_its_end(hub: ResumingHub) -> None:
    hub.breaks = [Break(1) for _ in range(FRAMES)]
    backed_up(hub, CHANGED, far(NOW), far(BEFORE))
    assert [len(call.batches) for call in hub.calls] == [1] * FRAMES + [0]
    sent = [call.open.payload_bytes_sent for call in hub.calls]
    assert sent == sorted(set(sent)) and sent[0] == 0


def test_digests_of_the_base_are_asked_for_only_behind_what_is_durable(hub: ResumingHub) -> None:
    asked_before = 0

    def note(context: grpc.ServicerContext) -> None:
        nonlocal asked_before
        asked_before = len(hub.digests_asked)
        hang_up(context)

    # Two frames lie in the first region.
    hub.breaks = [Break(3, note)]
    backed_up(hub, CHANGED, far(NOW), far(BEFORE))
    assert [request.region for request in hub.digests_asked[asked_before:]] == [1]


def test_layer_that_the_hub_begins_anew_is_sent_whole(hub: ResumingHub) -> None:
    def forget(context: grpc.ServicerContext) -> None:
        hub.layer = None
        hang_up(context)

    hub.breaks = [Break(3, forget), Break(1)]
    with capture_logs() as logs:
        backed_up(hub, CHANGED, far(NOW), far(BEFORE))
    assert [len(call.batches) for call in hub.calls] == [3, 1, FRAMES - 1]
    resumed = [log for log in logs if log["event"] == "disk_upload_resumed"]
    assert [log["durable_through"] is None for log in resumed] == [True, False]
    assert resumed[0]["bytes_resent"] >= sum(b.payload_bytes for b in hub.calls[0].batches)
    (sealed,) = [log for log in logs if log["event"] == "disk_sealed"]
    assert sealed["resumes"] == 2
    assert sealed["bytes_resent"] == sum(log["bytes_resent"] for log in resumed)


def refusing(error: SendenseError) -> Break:
    return Break(2, lambda context: abort_with(context, error))


class CatalogUnavailable(SendenseError):
    code = "CATALOG_UNAVAILABLE"
    status = grpc.StatusCode.UNAVAILABLE
    text = "the catalog is away"


PASSING = [
    HubStopping(),
    CatalogUnavailable(),
    UploadSuperseded("job-1", 1),
    FrameDamaged("job-1", 1, "a bit"),
    UploadTruncated("job-1", 1, "it ended"),
    UploadStalled("job-1", 1, 300),
    TooManyStreams("upload", 64),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: error.code)
def test_refusal_that_keeps_what_is_durable_is_tried_again(
    hub: ResumingHub, error: SendenseError
) -> None:
    hub.breaks = [refusing(error)]
    with capture_logs() as logs:
        backed_up(hub, ALLOCATED, far(NOW))
    (broke,) = [log for log in logs if log["event"] == "disk_upload_broke"]
    assert (broke["reason"], broke["log_level"]) == (error.code, "warning")
    assert broke["next_try_in_s"] >= 0
    assert [len(call.batches) for call in hub.calls] == [2, FRAMES - 2]


class RepositoryFull(SendenseError):
    code = "REPOSITORY_FULL"
    status = grpc.StatusCode.RESOURCE_EXHAUSTED
    text = "no space left"


def test_refusal_that_does_not_pass_ends_the_job_at_once(hub: ResumingHub) -> None:
    hub.breaks = [refusing(RepositoryFull())]
    with one_disk(hub, Site(far(NOW))) as disk, pytest.raises(HubRefused, match="no space") as e:
        disk.run(ALLOCATED)
    assert not e.value.retryable
    assert len(hub.calls) == 1


@pytest.mark.parametrize(
    "claim",
    [
        {"durable_frames": 4},
        {"durable_clusters": 32 * 3 + 1},
        {"durable_through_cluster": (1 << 31)},
        {"durable_payload_bytes": 1 << 40},
    ],
    ids=lambda claim: next(iter(claim)),
)
def test_hub_that_has_more_than_was_sent_is_not_believed(
    hub: ResumingHub, claim: dict[str, int]
) -> None:
    def boast(layer: Layer) -> upload_pb2.UploadOpened:
        told = layer.opened()
        for name, value in claim.items() if layer.batches else ():
            setattr(told, name, value)
        return told

    hub.opening = boast
    # The reader gives two frames, so that no more than these can be sent.
    hub.breaks = [Break(2)]
    site = Site(FarDisk(0, drawn(NOW)))
    site.reader_options = [{"block_at": 2}]
    with one_disk(hub, site) as disk, pytest.raises(HubMisbehaved, match="nobody sent"):
        disk.run(ALLOCATED)
    assert len(hub.calls) == 2


@pytest.mark.parametrize("through", [5, 33], ids=["not in the plan", "fewer clusters than told"])
def test_hub_with_a_layer_of_another_plan_is_not_believed(hub: ResumingHub, through: int) -> None:
    hub.opening = lambda layer: upload_pb2.UploadOpened(
        durable_frames=1, durable_through_cluster=through, durable_clusters=40
    )
    site = Site(FarDisk(0, drawn("A" * 100)))
    site.changed = site.changed if through == 33 else []
    with one_disk(hub, site) as disk, pytest.raises(HubMisbehaved, match="nobody sent"):
        disk.run(ALLOCATED)


def test_layer_of_an_earlier_run_of_the_agent_is_gone_on_with(hub: ResumingHub) -> None:
    now, before = far(NOW, 512), far(BEFORE, 512)
    hub.bases["job-1", 1] = before  # type: ignore[assignment]
    hub.breaks = [Break(3, lambda context: abort_with(context, RepositoryFull()))]
    with one_disk(hub, Site(now)) as first, pytest.raises(HubRefused):
        first.run(COMPARED)
    backed_up(hub, COMPARED, now, before)
    assert [len(call.batches) for call in hub.calls] == [3, FRAMES - 3]
    finish = hub.calls[-1].finish
    assert finish is not None
    assert finish.bytes_read == hub.calls[-1].open.bytes_planned


def test_disk_of_many_small_changes_is_resumed_between_them(hub: ResumingHub) -> None:
    text = ("A" + "." * 7) * 64
    now = FarDisk(0, drawn(text, cut_bytes=CLUSTER_BYTES - 512))
    hub.breaks = [Break(1), Break(1), Break(1)]
    backed_up(hub, CHANGED, now)
