"""The client of BaseDigests: asked ahead, answered in order, ended by whoever has to."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import grpc
import pytest

from agent.areas import Area, by_region, whole_disk
from agent.base_digests import REGIONS_AHEAD, BaseDigests
from agent.bounded_queue import QueueClosed
from agent.cancellation import Cancellation
from agent.errors import (
    BaseDigestsOverdue,
    BaseUnusable,
    HubMisbehaved,
    HubRefused,
    HubUnreachable,
    JobCancelled,
)
from sendense.channel import open_channel
from sendense.clusters import (
    CLUSTER_BYTES,
    DIGEST_BYTES,
    REGION_BYTES,
    REGION_CLUSTERS,
    ZERO_DIGEST,
    cluster_digest,
)
from sendense.v1 import upload_pb2
from shared.errors import SendenseError
from shared.grpc_errors import abort_with
from tests.unit.agent.drawn_disks import cluster_of, drawn
from tests.unit.agent.recording_hub import DEADLINE_S, LayerDamaged, RecordingHub

pytestmark = pytest.mark.hostile

MANY = 20 * REGION_BYTES


class ManyRegions(RecordingHub):
    """Every base is as large as you like and all zeros, but for what `answer` says."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = lambda request: upload_pb2.BaseDigestsResponse(
            region=request.region, all_zero=True
        )

    def BaseDigests(
        self,
        request_iterator: Iterator[upload_pb2.BaseDigestsRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[upload_pb2.BaseDigestsResponse]:
        for request in request_iterator:
            self.digests_asked.append(request)
            self.before_digests(request, context)
            answer = self.answer(request)
            if answer is None:
                return
            yield answer


@pytest.fixture
def many() -> Iterator[ManyRegions]:
    with ManyRegions() as hub:
        yield hub


@contextmanager
def base_at(
    hub: RecordingHub,
    capacity_bytes: int = MANY,
    cancellation: Cancellation | None = None,
    answer_s: float = DEADLINE_S,
) -> Iterator[BaseDigests]:
    with closing(open_channel(hub.address, dedicated=True)) as channel:
        yield BaseDigests(
            channel,
            job_id="job-1",
            disk_index=1,
            capacity_bytes=capacity_bytes,
            cancellation=cancellation,
            answer_s=answer_s,
        )
    left = [t for t in threading.enumerate() if t.name.startswith("base-digests")]
    assert left == []


def regions(capacity_bytes: int = MANY) -> Iterator[list[Area]]:
    return by_region(whole_disk(capacity_bytes))


def test_digests_of_the_clusters_asked_for_come_in_their_order(hub: RecordingHub) -> None:
    text, cut = "aB.cD.e", 700
    hub.bases["job-1", 1] = content = drawn(text, cut_bytes=cut)
    asked = [Area(CLUSTER_BYTES, 2 * CLUSTER_BYTES), Area(6 * CLUSTER_BYTES, CLUSTER_BYTES - cut)]
    with base_at(hub, len(content)) as base:
        ((areas, digests),) = base.ask([asked])
        ((_, whole),) = base.ask(regions(len(content)))
    assert areas == asked
    last = cluster_digest(cluster_of("e")[:-cut] + bytes(cut))
    assert digests == cluster_digest(cluster_of("B")) + ZERO_DIGEST + last
    assert len(whole) == len(text) * DIGEST_BYTES
    assert whole.endswith(last)
    # All of a region is asked for without a list.
    assert [bool(request.cluster_numbers) for request in hub.digests_asked] == [True, False]


def test_first_request_alone_names_the_disk(many: ManyRegions) -> None:
    with base_at(many) as base:
        answers = list(base.ask(regions()))
    assert [areas[0].start // REGION_BYTES for areas, _ in answers] == list(range(20))
    assert all(digests == ZERO_DIGEST * REGION_CLUSTERS for _, digests in answers)
    assert [request.job_id for request in many.digests_asked] == ["job-1"] + [""] * 19
    assert [request.region for request in many.digests_asked] == list(range(20))


def test_a_few_regions_are_asked_for_ahead(many: ManyRegions) -> None:
    taken = 0

    def counted() -> Iterator[list[Area]]:
        nonlocal taken
        for areas in regions():
            taken += 1
            yield areas

    with base_at(many) as base, closing(base.ask(counted())) as answers:
        for done, _ in enumerate(answers):
            assert taken == min(20, done + REGIONS_AHEAD)


def test_nothing_is_asked_of_a_disk_without_regions(many: ManyRegions) -> None:
    with base_at(many) as base:
        assert list(base.ask([])) == []
    assert many.digests_asked == []


class TooManyStreams(SendenseError):
    code = "TOO_MANY_STREAMS"
    status = grpc.StatusCode.RESOURCE_EXHAUSTED
    text = "too many"


@pytest.mark.parametrize("at", [0, 7])
@pytest.mark.parametrize(
    ("refusal", "expected"),
    [(LayerDamaged(), BaseUnusable), (TooManyStreams(), HubRefused)],
    ids=["damaged", "refused"],
)
def test_refusal_is_the_hub_s_and_tells_a_base_that_is_no_use(
    many: ManyRegions, at: int, refusal: SendenseError, expected: type[HubRefused]
) -> None:
    def refuse(request: upload_pb2.BaseDigestsRequest, context: grpc.ServicerContext) -> None:
        if request.region == at:
            abort_with(context, refusal)

    many.before_digests = refuse
    with base_at(many) as base, pytest.raises(HubRefused, match=str(refusal)) as caught:
        list(base.ask(regions()))
    assert type(caught.value) is expected
    assert caught.value.reason == refusal.code


def test_disk_without_a_base_is_no_use(hub: RecordingHub) -> None:
    with base_at(hub) as base, pytest.raises(BaseUnusable, match="no base"):
        list(base.ask(regions()))


@pytest.mark.parametrize(
    "answer",
    [
        upload_pb2.BaseDigestsResponse(region=3, all_zero=True),
        upload_pb2.BaseDigestsResponse(region=0, digests=ZERO_DIGEST),
        upload_pb2.BaseDigestsResponse(region=0),
        None,
    ],
    ids=["another region", "too few", "none", "the end"],
)
def test_answer_that_does_not_fit_is_refused(
    many: ManyRegions, answer: upload_pb2.BaseDigestsResponse | None
) -> None:
    many.answer = lambda request: answer
    with base_at(many) as base, pytest.raises(HubMisbehaved):
        list(base.ask(regions()))


def hold(many: ManyRegions) -> threading.Event:
    """The hub answers nothing until the call ends; the event: it was asked."""
    reached = threading.Event()

    def held(request: object, context: grpc.ServicerContext) -> None:
        ended = threading.Event()
        reached.set()
        if context.add_callback(ended.set):
            assert ended.wait(DEADLINE_S)

    many.before_digests = held
    return reached


def test_hub_that_answers_nothing_is_overdue(many: ManyRegions) -> None:
    hold(many)
    with base_at(many, answer_s=0.2) as base, pytest.raises(BaseDigestsOverdue, match=r"0\.2 s"):
        list(base.ask(regions()))


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_question_that_waits_ends_with_the_job_or_its_upload(many: ManyRegions, how: str) -> None:
    reached, cancellation = hold(many), Cancellation()
    with base_at(many, cancellation=cancellation) as base:

        def end() -> None:
            assert reached.wait(DEADLINE_S)
            cancellation.cancel(JobCancelled("enough")) if how == "cancelled" else base.close()

        threading.Thread(target=end).start()
        with pytest.raises(JobCancelled if how == "cancelled" else QueueClosed):
            list(base.ask(regions()))
        if how == "closed":
            base.close()
            with pytest.raises(QueueClosed):
                list(base.ask(regions()))


def test_question_that_is_left_early_ends_its_call(many: ManyRegions) -> None:
    with base_at(many) as base:
        with closing(base.ask(regions())) as answers:
            next(answers)
        end = time.monotonic() + DEADLINE_S
        assert len(list(base.ask(regions()))) == 20
        assert time.monotonic() < end


def test_hub_that_is_gone_is_unreachable() -> None:
    with RecordingHub() as hub:
        pass
    with base_at(hub) as base, pytest.raises(HubUnreachable):
        list(base.ask(regions()))
