"""The small parts of the pipeline: queue, window, frame builder, cancellation."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.ack_window import AckWindow
from agent.bounded_queue import BoundedQueue, QueueClosed, QueueEnded
from agent.cancellation import Cancellation
from agent.errors import HubMisbehaved, JobCancelled
from agent.pipeline import FRAME_PAYLOAD_BYTES, EncoderPool, FrameBuilder
from sendense.clusters import CLUSTER_BYTES, REGION_CLUSTERS
from sendense.codec import ClusterDecoder, ClusterEncoder, EncodedClusters, check_batch
from tests.unit.agent.drawn_disks import cluster_of, drawn

WAIT_S = 10


def test_queue_gives_items_in_order_then_says_ended() -> None:
    queue = BoundedQueue[int](3)
    for item in (1, 2, 3):
        queue.put(item)
    assert not queue.offer(4)
    queue.end()
    assert [queue.get(0), queue.get(0), queue.get(0)] == [1, 2, 3]
    with pytest.raises(QueueEnded):
        queue.get(0)
    with pytest.raises(QueueClosed):
        queue.put(5)


def test_queue_get_returns_none_when_nothing_comes() -> None:
    assert BoundedQueue[int](1).get(0.01) is None


@pytest.mark.parametrize("blocked", ["put", "get"])
def test_queue_close_wakes_whoever_is_blocked(blocked: str) -> None:
    queue = BoundedQueue[int](1)
    if blocked == "put":
        queue.put(1)
    outcome: list[type[Exception]] = []

    def block() -> None:
        try:
            queue.put(2) if blocked == "put" else queue.get(WAIT_S)
        except QueueClosed as error:
            outcome.append(type(error))

    thread = threading.Thread(target=block)
    thread.start()
    queue.close()
    thread.join(WAIT_S)
    assert outcome == [QueueClosed]
    queue.close()


def test_window_has_room_again_when_frames_are_durable() -> None:
    window = AckWindow(limit_bytes=100)
    window.sent(60)
    assert not window.has_room_for(41)
    window.sent(40)
    assert not window.has_room_for(1)
    window.acknowledged(1)
    assert window.has_room_for(60)
    assert (window.outstanding_frames, window.sent_frames) == (1, 2)


def test_window_lets_one_frame_through_however_large() -> None:
    assert AckWindow(limit_bytes=10).has_room_for(1000)


@pytest.mark.parametrize("durable", [0, 4], ids=["backwards", "beyond what was sent"])
def test_window_refuses_an_impossible_acknowledgement(durable: int) -> None:
    window = AckWindow()
    for _ in range(3):
        window.sent(1)
    window.acknowledged(2)
    with pytest.raises(HubMisbehaved):
        window.acknowledged(durable)


def built(batches: list[EncodedClusters]) -> list[EncodedClusters]:
    builder = FrameBuilder()
    frames = [frame for batch in batches for frame in builder.add(batch)]
    return frames + list(builder.finish())


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text("aAb.", min_size=0, max_size=12), max_size=12),
    st.integers(0, 40),
    st.booleans(),
)
def test_frames_hold_every_cluster_in_order_each_within_one_region(
    drawings: list[str], before_region_end: int, keep_zeros: bool
) -> None:
    encoder = ClusterEncoder()
    number = REGION_CLUSTERS - before_region_end
    batches, expected = [], {}
    for drawing in drawings:
        if number < REGION_CLUSTERS < number + len(drawing):
            number = REGION_CLUSTERS  # the reader's extents never cross a region
        batches.append(encoder.encode(number, drawn(drawing), keep_zeros=keep_zeros))
        for letter in drawing:
            if letter != "." or keep_zeros:
                expected[number] = cluster_of(letter)
            number += 1
    frames = built(batches)
    after, decoder, came = -1, ClusterDecoder(), {}
    for frame in frames:
        check_batch(frame, cluster_limit=1 << 20, after_cluster=after)
        after = frame.last_cluster
        assert frame.payload_bytes <= 2 * FRAME_PAYLOAD_BYTES
        came.update(decoder.decode(frame))
    assert came == expected
    assert list(came) == sorted(came)


def test_frames_are_joined_to_about_one_mib() -> None:
    encoder = ClusterEncoder()
    batches = [encoder.encode(n, drawn("A"), keep_zeros=False) for n in range(64)]
    assert [len(frame) for frame in built(batches)] == [16, 16, 16, 16]


def test_encoder_pool_gives_up_waiting_work_when_closed() -> None:
    with EncoderPool(threads=2) as pool:
        future = pool.submit(3 * CLUSTER_BYTES, drawn("a."), base_digests=None)
        assert future.result(WAIT_S).numbers.tolist() == [3]
    with pytest.raises(RuntimeError):
        pool.submit(0, drawn("a"), base_digests=None)


def test_cancellation_keeps_the_first_error_and_calls_each_callback_once() -> None:
    cancellation = Cancellation()
    cancellation.check()
    calls: list[str] = []
    first = JobCancelled("first")
    with cancellation.calling(lambda error: calls.append(f"inside {error}")):
        cancellation.cancel(first)
        cancellation.cancel(JobCancelled("second"))
    with cancellation.calling(lambda error: calls.append(f"late {error}")):
        pass
    assert cancellation.error is first
    assert [call.split()[0] for call in calls] == ["inside", "late"]
    with pytest.raises(JobCancelled, match="first"):
        cancellation.check()
