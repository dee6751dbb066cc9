"""Restores against a hub on a real socket: content, formats, targets, progress."""

import contextlib
import fcntl
import os
import resource
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sendense import (
    Client,
    DataLoss,
    FailedPrecondition,
    HubUnavailable,
    InvalidArgument,
    NotFound,
    TargetExists,
    TargetUnusable,
    TargetWriteFailed,
)
from sendense.channel import open_channel
from sendense.clusters import CLUSTER_BYTES, REGION_CLUSTERS
from sendense.codec import EncodedClusters, from_frame
from sendense.restore.decode import BATCHES_PER_THREAD, DecodePool
from sendense.restore.stall import StallGuard
from sendense.v1 import restore_pb2_grpc
from sendense.v1.restore_pb2 import RestoreDiskRequest
from tests.unit.sdk.client_hub import ClientHub, Part, draw, refused, stored

LAYOUT = "AB.C1..22D.E" * 3


@pytest.fixture
def hub() -> Iterator[ClientHub]:
    with ClientHub() as hub:
        yield hub


@pytest.fixture
def client(hub: ClientHub) -> Iterator[Client]:
    with Client(hub.address, timeout_s=10) as client:
        yield client


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("threads", [None, 1, 3])
@pytest.mark.parametrize("cut_bytes", [0, 1, 512, CLUSTER_BYTES - 1])
def test_raw_restore_is_identical(hub, client, tmp_path, cut_bytes, threads):
    content = draw(LAYOUT, cut_bytes=cut_bytes)
    hub.state.restore = lambda: stored(content)
    result = client.restore_disk("job-1", 0, tmp_path / "disk.raw", threads=threads)
    assert result.path.read_bytes() == content
    assert result.capacity_bytes == len(content)
    assert not result.imported
    assert bytes.fromhex(result.root_digest) == stored(content)[0].header.root_digest
    assert names(tmp_path) == ["disk.raw"]


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("counts_known", [False, True])
def test_imported_disk_is_restored_and_its_root_computed(
    hub, client, tmp_path, format, counts_known
):
    content = draw(LAYOUT, cut_bytes=512)
    parts, own = stored(content, imported=True), stored(content)
    if counts_known:
        parts[0].header.cluster_count = own[0].header.cluster_count
        parts[0].header.payload_bytes = own[0].header.payload_bytes
    hub.state.restore = lambda: parts
    told = []
    result = client.restore_disk("job-1", 0, tmp_path / "disk", format, progress=told.append)
    assert result.imported
    assert bytes.fromhex(result.root_digest) == own[0].header.root_digest
    assert result.cluster_count == own[0].header.cluster_count
    assert {progress.total_known for progress in told} == {counts_known}
    assert told[-1].done_bytes == result.cluster_count * CLUSTER_BYTES
    if format == "raw":
        assert result.path.read_bytes() == content


def test_imported_disk_without_data_becomes_a_hole(hub, client, tmp_path):
    hub.state.restore = lambda: stored({}, capacity_bytes=10 << 20, imported=True)
    result = client.restore_disk("job-1", 0, tmp_path / "disk.raw")
    assert result.path.read_bytes() == bytes(10 << 20)
    assert result.path.stat().st_blocks == 0


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    layout=st.text("AB.12", min_size=1, max_size=40),
    cut_bytes=st.integers(0, CLUSTER_BYTES - 1),
    frame_clusters=st.integers(1, 64),
    seed=st.integers(0, 99),
)
def test_raw_restore_is_identical_for_any_layout(
    hub, client, tmp_path, layout, cut_bytes, frame_clusters, seed
):
    content = draw(layout, seed=seed, cut_bytes=cut_bytes)
    hub.state.restore = lambda: stored(content, frame_clusters=frame_clusters)
    result = client.restore_disk("job-1", 0, tmp_path / "disk.raw", overwrite=True)
    assert result.path.read_bytes() == content


def test_raw_restore_is_sparse_on_a_large_thin_disk(hub, client, tmp_path):
    capacity = 102 << 30
    last = capacity // CLUSTER_BYTES - 1
    pieces = {3: draw("A1"), REGION_CLUSTERS - 1: draw("BC"), 900_000: draw("2"), last: draw("Z")}
    hub.state.restore = lambda: stored(pieces, capacity_bytes=capacity)
    result = client.restore_disk("job-1", 0, tmp_path / "disk.raw")
    assert result.path.stat().st_size == capacity
    assert result.path.stat().st_blocks * 512 < 2 << 20
    with result.path.open("rb") as file:
        for number, data in pieces.items():
            file.seek(number * CLUSTER_BYTES)
            assert file.read(len(data)) == data
        file.seek(4 << 30)
        assert not any(file.read(1 << 20))


def test_disk_without_data_becomes_a_hole(hub, client, tmp_path):
    hub.state.restore = lambda: stored({}, capacity_bytes=10 << 20)
    result = client.restore_disk("job-1", 0, tmp_path / "disk.raw")
    assert result.cluster_count == 0
    assert result.path.read_bytes() == bytes(10 << 20)
    assert result.path.stat().st_blocks == 0


@pytest.mark.parametrize("cut_bytes", [0, 512, CLUSTER_BYTES - 512])
def test_qcow2_restore_is_clean_and_identical(hub, client, tmp_path, cut_bytes):
    content = draw(LAYOUT, cut_bytes=cut_bytes)
    raw = tmp_path / "truth.raw"
    raw.write_bytes(content)
    hub.state.restore = lambda: stored(content)
    path = client.restore_disk("job-1", 0, tmp_path / "disk.qcow2", "qcow2").path
    subprocess.run(["qemu-img", "check", "-q", path], check=True, timeout=60)
    compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, raw]
    subprocess.run(compare, check=True, timeout=60)
    info = subprocess.run(
        ["qemu-img", "info", path], check=True, timeout=60, capture_output=True, text=True
    )
    assert "backing file" not in info.stdout
    assert f"({len(content)} bytes)" in info.stdout
    assert names(tmp_path) == ["disk.qcow2", "truth.raw"]


def test_unknown_format_is_refused(hub, client, tmp_path):
    with pytest.raises(InvalidArgument, match="vmdk"):
        client.restore_disk("job-1", 0, tmp_path / "disk", "vmdk")
    assert hub.state.seen == []


@pytest.mark.parametrize("threads", [-1, 0])
def test_threads_must_be_positive(client, tmp_path, threads):
    with pytest.raises(InvalidArgument, match="threads"):
        client.restore_disk("job-1", 0, tmp_path / "disk", threads=threads)


def test_progress_rises_to_its_totals(hub, client, tmp_path):
    content = draw(LAYOUT)
    hub.state.restore = lambda: stored(content, frame_clusters=2)
    seen = []
    caller = threading.get_ident()
    client.restore_disk(
        "job-1",
        0,
        tmp_path / "disk.raw",
        progress=lambda p: seen.append((threading.get_ident(), p)),
    )
    assert {ident for ident, _ in seen} == {caller}
    steps = [progress for _, progress in seen]
    assert [p.clusters_done for p in steps] == sorted({p.clusters_done for p in steps})
    assert steps[-1].done_bytes == steps[-1].total_bytes == 24 * CLUSTER_BYTES
    assert steps[-1].payload_done_bytes == steps[-1].payload_bytes
    assert steps[-1].disk_label == "Hard disk 1"


# The target


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_existing_file_is_refused_and_left_alone(hub, client, tmp_path, format):
    target = tmp_path / "disk"
    target.write_bytes(b"precious")
    with pytest.raises(TargetExists):
        client.restore_disk("job-1", 0, target, format)
    assert target.read_bytes() == b"precious"
    assert names(tmp_path) == ["disk"]
    assert hub.state.seen == []


def test_existing_file_is_replaced_when_asked_for(hub, client, tmp_path):
    target = tmp_path / "disk.raw"
    target.write_bytes(b"old" * 1000)
    hub.state.restore = lambda: stored(draw("A1"))
    client.restore_disk("job-1", 0, target, overwrite=True)
    assert target.read_bytes() == draw("A1")


def test_file_made_meanwhile_is_not_replaced(hub, client, tmp_path):
    target = tmp_path / "disk.raw"
    hub.state.restore = lambda: stored(draw("A1"))
    with pytest.raises(TargetExists, match="meanwhile"):
        client.restore_disk("job-1", 0, target, progress=lambda _: target.write_bytes(b"theirs"))
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["disk.raw"]


def test_missing_folder_is_named(client, tmp_path):
    with pytest.raises(TargetUnusable, match=r"nowhere does not exist") as caught:
        client.restore_disk("job-1", 0, tmp_path / "nowhere" / "disk.raw")
    assert caught.value.reason == "TARGET_FOLDER_MISSING"


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "device"])
def test_targets_that_are_no_files_are_refused(client, tmp_path, kind):
    target = tmp_path / "target"
    if kind == "folder":
        target.mkdir()
    elif kind == "link":
        (tmp_path / "other").write_bytes(b"precious")
        target.symlink_to(tmp_path / "other")
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target = Path("/dev/null")
    with pytest.raises(TargetUnusable) as caught:
        client.restore_disk("job-1", 0, target, overwrite=True)
    assert caught.value.reason == "TARGET_NOT_A_FILE"


def test_disk_that_cannot_fit_is_refused_before_a_byte_is_written(hub, client, tmp_path):
    parts = stored(draw("A1"), capacity_bytes=200 << 40)
    parts[0].header.cluster_count = (200 << 40) // CLUSTER_BYTES
    hub.state.restore = lambda: parts
    with pytest.raises(TargetUnusable) as caught:
        client.restore_disk("job-1", 0, tmp_path / "disk.raw")
    assert caught.value.reason == "TARGET_NO_SPACE"
    assert int(caught.value.metadata["needed_bytes"]) == 200 << 40
    assert names(tmp_path) == []


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_failed_write_is_told_and_leaves_nothing(hub, client, tmp_path, format):
    hub.state.restore = lambda: stored(draw("1234567890" * 4))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(TargetWriteFailed) as caught:
            client.restore_disk("job-1", 0, tmp_path / "disk", format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.metadata == {"errno": "EFBIG"}
    assert names(tmp_path) == []


def test_partial_file_of_a_crashed_restore_is_replaced(hub, client, tmp_path):
    (tmp_path / "disk.raw.partial").write_bytes(b"x" * 300_000)
    content = draw("A.1", cut_bytes=100)
    hub.state.restore = lambda: stored(content)
    client.restore_disk("job-1", 0, tmp_path / "disk.raw")
    assert (tmp_path / "disk.raw").read_bytes() == content
    assert names(tmp_path) == ["disk.raw"]


def test_partial_file_of_a_running_restore_is_left_alone(hub, client, tmp_path):
    partial = tmp_path / "disk.raw.partial"
    hub.state.restore = lambda: stored(draw("A1"))
    with partial.open("wb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        theirs.write(b"theirs")
        theirs.flush()
        with pytest.raises(TargetUnusable) as caught:
            client.restore_disk("job-1", 0, tmp_path / "disk.raw")
    assert caught.value.reason == "TARGET_BUSY"
    assert partial.read_bytes() == b"theirs"


def test_partial_name_that_is_a_link_is_not_followed(hub, client, tmp_path):
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "disk.raw.partial").symlink_to(tmp_path / "other")
    hub.state.restore = lambda: stored(draw("A1"))
    with pytest.raises(TargetUnusable):
        client.restore_disk("job-1", 0, tmp_path / "disk.raw")
    assert (tmp_path / "other").read_bytes() == b"precious"


def test_restored_file_follows_the_umask(hub, client, tmp_path):
    hub.state.restore = lambda: stored(draw("A"))
    before = os.umask(0o077)
    try:
        path = client.restore_disk("job-1", 0, tmp_path / "disk.raw").path
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# The stream's end


@pytest.mark.parametrize(
    ("failure", "kind", "reason"),
    [
        (refused("no such job"), NotFound, "JOB_NOT_FOUND"),
        (
            refused(
                "failed", status=grpc.StatusCode.FAILED_PRECONDITION, code="NOT_A_RESTORE_POINT"
            ),
            FailedPrecondition,
            "NOT_A_RESTORE_POINT",
        ),
    ],
)
def test_refusals_of_the_hub_are_typed(hub, client, tmp_path, failure, kind, reason):
    hub.state.failures["RestoreDisk"] = [failure]
    with pytest.raises(kind) as caught:
        client.restore_disk("job-1", 0, tmp_path / "disk.raw")
    assert caught.value.reason == reason
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("failure", "kind", "reason"),
    [
        (
            refused("layer is damaged", status=grpc.StatusCode.DATA_LOSS, code="LAYER_DAMAGED"),
            DataLoss,
            "LAYER_DAMAGED",
        ),
        (grpc.StatusCode.UNAVAILABLE, HubUnavailable, "HUB_UNAVAILABLE"),
    ],
)
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_stream_that_breaks_leaves_nothing(hub, client, tmp_path, failure, kind, reason, format):
    hub.state.restore = lambda: [*stored(draw(LAYOUT))[:4], failure]
    (tmp_path / "disk").write_bytes(b"old")
    with pytest.raises(kind) as caught:
        client.restore_disk("job-1", 0, tmp_path / "disk", format, overwrite=True)
    assert caught.value.reason == reason
    assert names(tmp_path) == ["disk"]
    assert (tmp_path / "disk").read_bytes() == b"old"


def test_interrupted_restore_leaves_nothing_and_ends_the_call(hub, client, tmp_path):
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    stay = threading.Event()

    def slow() -> Iterator[Part]:
        yield from stored(draw(LAYOUT))[:-1]
        stay.wait(20)

    hub.state.restore = slow
    with pytest.raises(KeyboardInterrupt):
        client.restore_disk("job-1", 0, tmp_path / "disk.raw", progress=interrupt)
    assert names(tmp_path) == []
    assert hub.state.stream_ended.wait(10)
    stay.set()


def open_sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed by another thread meanwhile
            count += str(entry.readlink()).startswith("socket:")
    return count


def test_restores_that_fail_early_leave_no_connection(hub, client, tmp_path):
    parts = stored(draw(LAYOUT))
    hub.state.restore = lambda: [*parts[:2], parts[-1], *parts[2:]]
    before = open_sockets()
    for _ in range(10):
        with pytest.raises(DataLoss):
            client.restore_disk("job-1", 0, tmp_path / "disk.raw")
    end = time.monotonic() + 20
    while open_sockets() > before + 1:  # the listening side may still have one to close
        assert time.monotonic() < end, f"{before} sockets before, {open_sockets()} after"
        time.sleep(0.02)


def test_stalled_hub_is_given_up(hub):
    stay = threading.Event()

    def stalls() -> Iterator[Part]:
        yield from stored(draw(LAYOUT))[:2]
        stay.wait(20)

    hub.state.restore = stalls
    with open_channel(hub.address, dedicated=True) as channel:
        call = restore_pb2_grpc.RestoreServiceStub(channel).RestoreDisk(RestoreDiskRequest())
        with StallGuard(call, hub.address, limit_s=0.2) as guard:
            responses = guard.responses()
            assert next(responses).WhichOneof("part") == "header"
            assert next(responses).WhichOneof("part") == "frame"
            with pytest.raises(HubUnavailable) as caught:
                next(responses)
    stay.set()
    assert caught.value.reason == "HUB_STALLED"


def test_decoding_takes_no_more_batches_than_its_limit():
    go_on = threading.Event()
    consumed = []

    def consume(clusters: Iterator[tuple[int, bytes]]) -> None:
        go_on.wait(20)
        consumed.append(list(clusters))

    batches = some_batches(BATCHES_PER_THREAD + 3)
    submitted = []

    def submit_all() -> None:
        for batch in batches:
            pool.submit(batch)
            submitted.append(batch)
            if len(submitted) == BATCHES_PER_THREAD:
                full.set()
        pool.finish()

    full = threading.Event()
    with DecodePool(1, consume) as pool:
        submitter = threading.Thread(target=submit_all)
        submitter.start()
        assert full.wait(20)
        assert len(submitted) == BATCHES_PER_THREAD
        go_on.set()
        submitter.join(20)
    assert len(consumed) == len(batches)


def some_batches(count: int) -> list[EncodedClusters]:
    parts = stored(draw("A" * count), frame_clusters=1)[1:-1]
    return [from_frame(part.frame, cluster_limit=count) for part in parts]
