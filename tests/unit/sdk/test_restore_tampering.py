"""A restore stream that lies anywhere restores nothing, and says what was wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sendense import Client, DataLoss
from sendense.clusters import CLUSTER_BYTES, ZERO_DIGEST
from sendense.codec import EncodedClusters, from_frame
from tests.unit.sdk.client_hub import ClientHub, Part, draw, stored

CONTENT = draw("AB.C12D.E3F4" * 2)
LIMIT = len(CONTENT) // CLUSTER_BYTES

Tamper = Callable[[list[Part]], list[Part]]


@pytest.fixture(scope="module")
def hub() -> Iterator[ClientHub]:
    with ClientHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def client(hub: ClientHub) -> Iterator[Client]:
    with Client(hub.address, timeout_s=10) as client:
        yield client


def batch_of(part: Part) -> EncodedClusters:
    return from_frame(part.frame, cluster_limit=LIMIT)


def resealed(part: Part, **changes: object) -> Part:
    """The frame with other fields and a checksum that fits them: not a transfer error but a lie."""
    batch = batch_of(part)
    fields = {name: getattr(batch, name) for name in EncodedClusters.__slots__} | changes
    return Part(frame=EncodedClusters(**fields).to_frame())


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def with_header(parts: list[Part], **changes: object) -> list[Part]:
    for name, value in changes.items():
        setattr(parts[0].header, name, value)
    return parts


def flip_compressed_in_transfer(parts):
    parts[2].frame.compressed = flipped(parts[2].frame.compressed, 5)
    return parts


def flip_compressed(parts):
    parts[2] = resealed(parts[2], compressed=flipped(batch_of(parts[2]).compressed, 9))
    return parts


def flip_raw(parts):
    parts[2] = resealed(parts[2], raw=flipped(batch_of(parts[2]).raw, 65_535))
    return parts


def flip_digest(parts):
    parts[1] = resealed(parts[1], digests=flipped(batch_of(parts[1]).digests, 0))
    return parts


def swap_two_clusters_digests_and_all(parts):
    # Both clusters are what their digests say, at each other's place: only the root knows.
    batch = batch_of(parts[1])
    digests = batch.digests[16:32] + batch.digests[:16] + batch.digests[32:]
    first, second = batch.sizes[:2].tolist()
    data = batch.compressed
    compressed = data[first : first + second] + data[:first] + data[first + second :]
    sizes = batch.sizes.copy()
    sizes[:2] = second, first
    parts[1] = resealed(parts[1], digests=digests, sizes=sizes, compressed=compressed)
    return parts


def move_cluster_into_a_hole(parts):
    numbers = batch_of(parts[1]).numbers.copy()
    assert numbers.tolist() == [0, 1, 3]
    numbers[1] = 2
    parts[1] = resealed(parts[1], numbers=numbers)
    return parts


def zero_a_cluster(parts):
    batch = batch_of(parts[1])
    sizes = batch.sizes.copy()
    gone = int(sizes[0])
    sizes[0] = 0
    parts[1] = resealed(
        parts[1],
        sizes=sizes,
        compressed=batch.compressed[gone:],
        digests=ZERO_DIGEST + batch.digests[16:],
    )
    parts[0].header.payload_bytes -= gone
    parts[-1].trailer.payload_bytes -= gone
    return parts


def drop_a_frame(parts):
    del parts[2]
    return parts


def drop_a_frame_and_its_counts(parts):
    batch = batch_of(parts.pop(2))
    for counts in (parts[0].header, parts[-1].trailer):
        counts.cluster_count -= len(batch)
        counts.payload_bytes -= batch.payload_bytes
    return parts


def beyond_capacity(parts):
    numbers = np.array([LIMIT + n for n in range(len(batch_of(parts[-2])))], np.uint32)
    parts[-2] = resealed(parts[-2], numbers=numbers)
    return parts


TAMPERINGS: dict[str, tuple[Tamper, str]] = {
    "byte flipped on the way": (flip_compressed_in_transfer, "FRAME_CORRUPT"),
    "compressed byte flipped before": (flip_compressed, "CLUSTER_DAMAGED"),
    "raw byte flipped before": (flip_raw, "CLUSTER_DAMAGED"),
    "digest wrong": (flip_digest, "CLUSTER_DAMAGED"),
    "two clusters exchanged": (swap_two_clusters_digests_and_all, "ROOT_DIGEST_MISMATCH"),
    "cluster moved": (move_cluster_into_a_hole, "ROOT_DIGEST_MISMATCH"),
    "cluster zeroed": (zero_a_cluster, "ROOT_DIGEST_MISMATCH"),
    "root wrong": (
        lambda parts: with_header(parts, root_digest=bytes(32)),
        "ROOT_DIGEST_MISMATCH",
    ),
    "root missing": (lambda parts: with_header(parts, root_digest=b""), "STREAM_INVALID"),
    "capacity zero": (lambda parts: with_header(parts, capacity_bytes=0), "STREAM_INVALID"),
    "capacity absurd": (lambda parts: with_header(parts, capacity_bytes=1 << 60), "STREAM_INVALID"),
    "capacity grown": (
        lambda parts: with_header(parts, capacity_bytes=len(CONTENT) + CLUSTER_BYTES),
        "ROOT_DIGEST_MISMATCH",
    ),
    "another job": (lambda parts: with_header(parts, job_id="job-2"), "STREAM_INVALID"),
    "another disk": (lambda parts: with_header(parts, disk_index=1), "STREAM_INVALID"),
    "more clusters announced": (
        lambda parts: with_header(parts, cluster_count=parts[0].header.cluster_count + 1),
        "COUNT_MISMATCH",
    ),
    "fewer clusters announced": (
        lambda parts: with_header(parts, cluster_count=1),
        "COUNT_MISMATCH",
    ),
    "less payload announced": (
        lambda parts: with_header(parts, payload_bytes=1),
        "COUNT_MISMATCH",
    ),
    "header missing": (lambda parts: parts[1:], "STREAM_INVALID"),
    "header twice": (lambda parts: [parts[0], *parts], "STREAM_INVALID"),
    "nothing": (lambda parts: [], "STREAM_INVALID"),
    "empty message": (lambda parts: [*parts[:2], Part(), *parts[2:]], "STREAM_INVALID"),
    "trailer missing": (lambda parts: parts[:-1], "STREAM_TRUNCATED"),
    "header alone": (lambda parts: parts[:1], "STREAM_TRUNCATED"),
    "trailer early": (lambda parts: [*parts[:3], parts[-1]], "COUNT_MISMATCH"),
    "goes on after trailer": (lambda parts: [*parts, parts[1]], "STREAM_INVALID"),
    "frame missing": (drop_a_frame, "COUNT_MISMATCH"),
    "frame missing and not counted": (drop_a_frame_and_its_counts, "ROOT_DIGEST_MISMATCH"),
    "frame twice": (lambda parts: [*parts[:2], parts[1], *parts[2:]], "FRAME_INVALID"),
    "frames out of order": (
        lambda parts: [parts[0], parts[2], parts[1], *parts[3:]],
        "FRAME_INVALID",
    ),
    "cluster beyond capacity": (beyond_capacity, "FRAME_INVALID"),
}


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize(("tamper", "reason"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_tampered_stream_restores_nothing(hub, client, tmp_path, tamper, reason, format):
    target = tmp_path / "disk"
    target.write_bytes(b"what was there before")
    parts = tamper(stored(CONTENT))
    hub.state.restore = lambda: parts
    with pytest.raises(DataLoss) as caught:
        client.restore_disk("job-1", 0, target, format, overwrite=True)
    assert caught.value.reason == reason
    assert target.read_bytes() == b"what was there before"
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def with_trailer(parts: list[Part], **changes: object) -> list[Part]:
    for name, value in changes.items():
        setattr(parts[-1].trailer, name, value)
    return parts


# Of a restore point that was imported: its header knows neither counts nor root.
IMPORTED: dict[str, tuple[Tamper, str]] = {
    "not imported": (lambda parts: with_header(parts, imported=False), "STREAM_INVALID"),
    "root short in the header": (
        lambda parts: with_header(parts, root_digest=bytes(31)),
        "STREAM_INVALID",
    ),
    "root missing": (lambda parts: with_trailer(parts, root_digest=b""), "STREAM_INVALID"),
    "root short": (
        lambda parts: with_trailer(parts, root_digest=parts[-1].trailer.root_digest[:31]),
        "STREAM_INVALID",
    ),
    "root wrong": (
        lambda parts: with_trailer(parts, root_digest=bytes(32)),
        "ROOT_DIGEST_MISMATCH",
    ),
    "header's root differs": (
        lambda parts: with_header(parts, root_digest=bytes(32)),
        "STREAM_INVALID",
    ),
    "header's root alone is wrong": (
        lambda parts: with_trailer(with_header(parts, root_digest=bytes(32)), root_digest=b""),
        "ROOT_DIGEST_MISMATCH",
    ),
    "cluster moved": (move_cluster_into_a_hole, "ROOT_DIGEST_MISMATCH"),
    "frame missing": (drop_a_frame, "COUNT_MISMATCH"),
    "trailer missing": (lambda parts: parts[:-1], "STREAM_TRUNCATED"),
    "fewer clusters counted": (
        lambda parts: with_trailer(parts, cluster_count=1),
        "COUNT_MISMATCH",
    ),
    "fewer clusters announced": (
        lambda parts: with_header(parts, cluster_count=1),
        "COUNT_MISMATCH",
    ),
    "more payload announced": (
        lambda parts: with_header(parts, payload_bytes=1 << 40),
        "COUNT_MISMATCH",
    ),
}


@pytest.mark.parametrize(("tamper", "reason"), IMPORTED.values(), ids=IMPORTED)
def test_tampered_stream_of_an_imported_disk_restores_nothing(
    hub, client, tmp_path, tamper, reason
):
    parts = tamper(stored(CONTENT, imported=True))
    hub.state.restore = lambda: parts
    with pytest.raises(DataLoss) as caught:
        client.restore_disk("job-1", 0, tmp_path / "disk")
    assert caught.value.reason == reason
    assert list(tmp_path.iterdir()) == []


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.parametrize("imported", [False, True], ids=["own", "imported"])
@given(data=st.data())
def test_no_flipped_byte_of_the_stream_is_restored(hub, client, tmp_path, imported, data):
    """Whatever single byte of any message changes, the result is an error or the true disk."""
    parts = stored(CONTENT, imported=imported)
    at = data.draw(st.integers(0, len(parts) - 1), label="message")
    message = parts[at].SerializeToString()
    byte = data.draw(st.integers(0, len(message) - 1), label="byte")
    try:
        parts[at] = Part.FromString(flipped(message, byte))
    except DecodeError:
        return  # no message any more: gRPC refuses it
    hub.state.restore = lambda: parts
    target = Path(tmp_path, "disk.raw")
    try:
        client.restore_disk("job-1", 0, target, overwrite=True)
    except DataLoss:
        assert not target.exists()
    else:
        assert target.read_bytes() == CONTENT
        target.unlink()
    assert not target.with_name("disk.raw.partial").exists()
