"""What an upload carries, and when."""

import threading
import time
from collections.abc import Iterable, Iterator

import grpc
import numpy as np
import pytest

from agent import upload_sending
from agent.ack_window import AckWindow
from agent.areas import EXTENT_BYTES, Area
from agent.missed_changes import MissedChanges
from agent.transports.disk_reader import Extent
from sendense.clusters import CLUSTER_BYTES, REGION_BYTES
from sendense.v1 import backup_pb2
from tests.unit.agent.drawn_disks import MemoryReader, drawn
from tests.unit.agent.recording_hub import DEADLINE_S, RecordingHub, Upload
from tests.unit.agent.uploading import no_threads_are_left, uploaded  # noqa: F401

EXTENT_CLUSTERS = EXTENT_BYTES // CLUSTER_BYTES


@pytest.mark.parametrize("cut_bytes", [0, 512, CLUSTER_BYTES - 512])
def test_full_upload_carries_the_disk_and_leaves_zeros_out(
    hub: RecordingHub, cut_bytes: int
) -> None:
    text = "aB..c" + "." * 70 + "D" * 40 + "e"
    content = drawn(text, cut_bytes=cut_bytes)
    result, upload = uploaded(hub, MemoryReader(content))
    disk = bytearray(len(content))
    upload.apply_to(disk)
    assert bytes(disk) == content
    assert sorted(upload.sizes) == [n for n, letter in enumerate(text) if letter != "."]
    assert upload.finish is not None
    assert upload.finish.frame_count == len(upload.batches) == result.frame_count
    assert upload.finish.cluster_count == len(upload.sizes) == result.cluster_count
    assert upload.finish.payload_bytes == result.payload_bytes == result.bytes_stored
    assert upload.finish.bytes_read == result.bytes_read == len(content)
    assert upload.open.bytes_planned == len(content)
    assert upload.open.read_method == backup_pb2.READ_METHOD_ALLOCATED
    assert not upload.open.full_instead
    assert upload.finish.bytes_unchanged == 0
    assert hub.digests_asked == []
    assert result.root_digest == b"r" * 32


def test_incremental_upload_keeps_clusters_that_became_zero(hub: RecordingHub) -> None:
    before = drawn("abcdefgh" * 40)
    now = bytearray(before)
    now[3 * CLUSTER_BYTES : 5 * CLUSTER_BYTES] = bytes(2 * CLUSTER_BYTES)
    now[EXTENT_BYTES : 2 * EXTENT_BYTES] = bytes(EXTENT_BYTES)
    now[-700:] = b"x" * 700
    changed = [
        Area(3 * CLUSTER_BYTES + 512, 2 * CLUSTER_BYTES - 1024),
        Area(EXTENT_BYTES, EXTENT_BYTES),
        Area(len(now) - 700, 700),
    ]
    _, upload = uploaded(hub, MemoryReader(bytes(now)), changed, base=before)
    assert upload.open.read_method == backup_pb2.READ_METHOD_CHANGED
    assert {number for number, size in upload.sizes.items() if size == 0} == {
        3, 4, *range(EXTENT_CLUSTERS, 2 * EXTENT_CLUSTERS),
    }  # fmt: skip
    disk = bytearray(before)
    upload.apply_to(disk)
    assert disk == now


@pytest.mark.hostile
@pytest.mark.parametrize("cut_bytes", [0, 512, CLUSTER_BYTES - 512])
def test_clusters_that_equal_the_base_are_read_and_not_sent(
    hub: RecordingHub, cut_bytes: int
) -> None:
    text = "aB..c" + "." * 70 + "D" * 40 + "e"
    before = drawn(text, cut_bytes=cut_bytes)
    now = drawn("aX..." + "." * 40 + "y" + "." * 29 + "D" * 40 + "e", cut_bytes=cut_bytes)
    result, upload = uploaded(hub, MemoryReader(now), base=before)
    # What is no more is a zero cluster, what was never there is not sent.
    assert {n: size == 0 for n, size in upload.sizes.items()} == {1: False, 4: True, 45: False}
    disk = bytearray(before)
    upload.apply_to(disk)
    assert bytes(disk) == now
    assert upload.finish is not None
    assert upload.finish.bytes_read == upload.open.bytes_planned == len(now)
    assert upload.finish.bytes_unchanged == result.bytes_unchanged == len(now) - 3 * CLUSTER_BYTES


@pytest.mark.hostile
def test_last_cluster_off_the_grid_counts_with_its_bytes(hub: RecordingHub) -> None:
    result, _ = uploaded(
        hub, MemoryReader(drawn("ab", cut_bytes=512)), base=drawn("ac", cut_bytes=512)
    )
    assert result.bytes_unchanged == CLUSTER_BYTES


def test_upload_of_nothing_is_opened_and_sealed(hub: RecordingHub) -> None:
    result, upload = uploaded(hub, MemoryReader(drawn("ab")), [], base=drawn("ab"))
    assert upload.batches == []
    assert upload.finish is not None
    assert result.bytes_read == result.frame_count == 0


def test_upload_tells_why_a_full_replaces_an_increment(hub: RecordingHub) -> None:
    _, upload = uploaded(
        hub, MemoryReader(drawn("ab")), told={"full_reason": "the base is damaged"}
    )
    assert upload.open.full_instead
    assert upload.open.full_reason == "the base is damaged"


@pytest.mark.hostile
def test_upload_tells_of_the_sample_and_counts_what_tracking_missed(hub: RecordingHub) -> None:
    sampling = backup_pb2.DiskSampling(clusters_sampled=9, clusters_missed=1)
    missed = MissedChanges()
    missed.sampled([Area(0, CLUSTER_BYTES)], np.array([3]))
    _, upload = uploaded(
        hub,
        MemoryReader(drawn("XbXX")),
        base=drawn("abcd"),
        told={"reason": "missed", "sampling": sampling, "missed": missed},
    )
    assert upload.open.sampling == sampling
    assert upload.open.read_reason == "missed"
    assert upload.finish is not None
    assert upload.finish.clusters_missed == 2


def test_frames_stay_within_a_region(hub: RecordingHub) -> None:
    # A disk of a bit more than one region whose zeros cost no memory here.
    class Sparse(MemoryReader):
        capacity_bytes = REGION_BYTES + 4 * CLUSTER_BYTES

        def read(self, areas):  # type: ignore[no-untyped-def]
            for area in areas:
                yield Extent(area.start, drawn("a" * (area.length // CLUSTER_BYTES)))

    around = Area(REGION_BYTES - 4 * CLUSTER_BYTES, 8 * CLUSTER_BYTES)
    _, upload = uploaded(hub, Sparse(b""), [around])
    assert [batch.region for batch in upload.batches] == [0, 1]


def test_upload_stops_sending_when_64_mib_are_not_acknowledged(
    hub: RecordingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    sent = AckWindow.sent

    def watch(window: AckWindow, payload_bytes: int) -> None:
        nonlocal most
        sent(window, payload_bytes)
        most = max(most, window._bytes)

    monkeypatch.setattr(AckWindow, "sent", watch)
    hub.ack_every = 0

    def acknowledge_late(upload: Upload, context: grpc.ServicerContext) -> None:
        if len(upload.batches) == 31:
            hub.ack_every = 1

    hub.before_frame = acknowledge_late
    _, upload = uploaded(hub, MemoryReader(drawn("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 60)))
    assert len(upload.batches) > 40
    assert most == 64 << 20


def test_progress_is_reported_while_only_zeros_are_read(hub: RecordingHub) -> None:
    def reported() -> list[int]:
        upload = hub.uploads.get(("job-1", 1))
        return upload.progress if upload else []

    class Slow(MemoryReader):
        def read(self, areas):  # type: ignore[no-untyped-def]
            for number, extent in enumerate(super().read(areas)):
                # The reader goes on once the hub has heard of what was read before.
                while number == 4 and not reported():
                    time.sleep(0.01)
                yield extent

    _, upload = uploaded(hub, Slow(bytes(8 * EXTENT_BYTES)))
    assert upload.progress[0] == 4 * EXTENT_BYTES
    assert upload.batches == []


@pytest.mark.hostile
def test_upload_whose_reader_waits_long_gives_signs_of_life(
    hub: RecordingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_sending, "SIGN_OF_LIFE_S", 0.0)

    class Slow(MemoryReader):
        """Goes on once the hub heard twice that nothing more was read."""

        def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
            for extent in super().read(areas):
                if extent.offset:
                    self.faults_fired += heard_twice_the_same.wait(DEADLINE_S)
                yield extent

    heard_twice_the_same = threading.Event()

    def heard(upload: Upload) -> None:
        if upload.progress[-2:-1] == upload.progress[-1:]:
            heard_twice_the_same.set()

    hub.after_progress = heard
    content = drawn("abcd" * 10)
    reader = Slow(content)
    _, upload = uploaded(hub, reader)
    assert reader.faults_fired == 1
    assert upload.progress[-1] <= len(content)
