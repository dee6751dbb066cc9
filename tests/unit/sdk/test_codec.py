"""The cluster codec: what is encoded comes back, what is wrong is refused."""

import random
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from sendense.clusters import (
    CLUSTER_BYTES,
    REGION_CLUSTERS,
    ZERO_CLUSTER,
    ZERO_DIGEST,
    cluster_digest,
)
from sendense.codec import (
    ClusterDamaged,
    ClusterDecoder,
    ClusterEncoder,
    EncodedClusters,
    FrameCorrupt,
    FrameInvalid,
    check_batch,
    from_frame,
    merge,
)
from sendense.v1 import clusters_pb2

LIMIT = 3 * REGION_CLUSTERS


def cluster(kind: str) -> bytes:
    """A letter's cluster: "0" zeros, lower case does not compress, "^" one byte behind zeros."""
    if kind == "0":
        return ZERO_CLUSTER
    if kind == "^":
        return bytes(CLUSTER_BYTES - 1) + b"\x01"
    noise = random.Random(kind)
    if kind.islower():
        return noise.randbytes(CLUSTER_BYTES)
    return noise.randbytes(3000).ljust(CLUSTER_BYTES, b"-")


def encode(text: str, first_cluster: int = 0, *, keep_zeros: bool = True) -> EncodedClusters:
    data = b"".join(map(cluster, text))
    return ClusterEncoder().encode(first_cluster, data, keep_zeros=keep_zeros)


def digests_of(text: str) -> bytes:
    return b"".join(cluster_digest(cluster(kind)) for kind in text)


def decode(batch: EncodedClusters) -> dict[int, bytes]:
    return dict(ClusterDecoder().decode(batch))


@given(
    text=st.text(alphabet="ABCxyz0^", max_size=8),
    first_cluster=st.integers(0, REGION_CLUSTERS - 8),
    keep_zeros=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_clusters_come_back_through_a_frame(
    text: str, first_cluster: int, keep_zeros: bool
) -> None:
    batch = encode(text, first_cluster, keep_zeros=keep_zeros)
    expected = {
        number: cluster(kind)
        for number, kind in enumerate(text, start=first_cluster)
        if keep_zeros or kind != "0"
    }
    assert len(batch) == len(expected)
    if not expected:
        return
    wire = batch.to_frame().SerializeToString()
    frame = clusters_pb2.ClusterFrame.FromString(wire)
    received = from_frame(frame, cluster_limit=LIMIT, after_cluster=first_cluster - 1)
    assert decode(received) == expected
    assert received.digests == b"".join(cluster_digest(data) for data in expected.values())
    assert received.payload_bytes == int(received.sizes.sum())


def test_clusters_that_do_not_shrink_are_raw_and_the_runs_are_in_order() -> None:
    batch = encode("aB0bC")
    assert [int(size) for size in batch.sizes if size in (0, CLUSTER_BYTES)] == [
        CLUSTER_BYTES,
        0,
        CLUSTER_BYTES,
    ]
    assert batch.raw == cluster("a") + cluster("b")
    first = int(batch.sizes[1])
    assert zstandard.decompress(batch.compressed[:first]) == cluster("B")
    assert zstandard.decompress(batch.compressed[first:]) == cluster("C")


@pytest.mark.parametrize("length", [1, 511, 512, CLUSTER_BYTES - 1])
def test_last_cluster_is_padded_with_zeros(length: int) -> None:
    data = cluster("a") + cluster("b")[:length]
    for given_data in (data, bytearray(data), memoryview(data)):
        batch = ClusterEncoder().encode(7, given_data, keep_zeros=False)
        assert decode(batch) == {
            7: cluster("a"),
            8: cluster("b")[:length].ljust(CLUSTER_BYTES, b"\0"),
        }


@pytest.mark.parametrize("at", [0, 1, 32768, CLUSTER_BYTES - 1])
def test_cluster_is_zero_only_when_every_byte_is(at: int) -> None:
    data = bytearray(CLUSTER_BYTES)
    assert len(ClusterEncoder().encode(0, data, keep_zeros=False)) == 0
    data[at] = 1
    assert decode(ClusterEncoder().encode(0, data, keep_zeros=False)) == {0: bytes(data)}


@given(now=st.text(alphabet="ABCxyz0^", max_size=8), seed=st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_what_the_base_has_already_is_left_out(now: str, seed: random.Random) -> None:
    base = "".join(seed.choice([kind, kind, "0", "D"]) for kind in now)
    data = b"".join(map(cluster, now))
    expected = {
        number: cluster(kind)
        for number, (kind, was) in enumerate(zip(now, base, strict=True), start=5)
        if kind != was
    }
    for keep_zeros in (False, True):  # not looked at
        batch = ClusterEncoder().encode(
            5, data, keep_zeros=keep_zeros, base_digests=digests_of(base)
        )
        assert decode(batch) == expected
        if expected:
            check_batch(batch, cluster_limit=LIMIT, after_cluster=4)


@pytest.mark.parametrize(
    ("now", "base", "sizes"),
    [("0", "A", [0]), ("0", "0", []), ("A", "A", []), ("a", "0", [CLUSTER_BYTES])],
    ids=["zeros over data", "zeros over zeros", "the same", "data over zeros"],
)
def test_zeros_are_sent_where_the_base_has_data_alone(
    now: str, base: str, sizes: list[int]
) -> None:
    batch = ClusterEncoder().encode(0, cluster(now), keep_zeros=True, base_digests=digests_of(base))
    assert batch.sizes.tolist() == sizes


def test_nothing_is_compressed_that_the_base_has_already() -> None:
    encoder = ClusterEncoder()
    compressed: list[bytes] = []
    compressor = encoder._compressor

    class Counting:
        def compress(self, data: bytes) -> bytes:
            compressed.append(bytes(data))
            return compressor.compress(data)

    encoder._compressor = Counting()  # type: ignore[assignment]
    data = b"".join(map(cluster, "AbCd"))
    encoder.encode(0, data, keep_zeros=True, base_digests=digests_of("AbXd"))
    assert compressed == [cluster("C")]


@pytest.mark.parametrize("length", [1, 512, CLUSTER_BYTES - 1])
def test_last_cluster_is_compared_with_its_padding(length: int) -> None:
    last = cluster("b")[:length]
    padded = last.ljust(CLUSTER_BYTES, b"\0")
    data = cluster("a") + last
    same = cluster_digest(cluster("a")) + cluster_digest(padded)
    for given_data in (data, bytearray(data), memoryview(data)):
        encoder = ClusterEncoder()
        assert len(encoder.encode(7, given_data, keep_zeros=True, base_digests=same)) == 0
        other = encoder.encode(7, given_data, keep_zeros=True, base_digests=digests_of("aa"))
        assert decode(other) == {8: padded}


@pytest.mark.parametrize("digests", [b"", digests_of("A"), digests_of("ABC"), b"x" * 31])
def test_digests_of_another_number_of_clusters_are_a_mistake(digests: bytes) -> None:
    with pytest.raises(ValueError, match="for 2 clusters"):
        ClusterEncoder().encode(0, cluster("A") + b"x", keep_zeros=True, base_digests=digests)


def test_digest_is_blake3_cut_to_16_bytes() -> None:
    assert cluster_digest(cluster("A")) == blake3(cluster("A")).digest()[:16]
    assert blake3(bytes(65536)).digest()[:16] == ZERO_DIGEST


def test_frame_layout_is_that_of_the_contract() -> None:
    frame = encode("A0b", 300).to_frame()
    assert frame.cluster_numbers == struct.pack("<3I", 300, 301, 302)
    assert frame.stored_sizes == struct.pack("<3I", len(frame.compressed), 0, 65536)
    fields = (
        frame.cluster_numbers + frame.stored_sizes + frame.digests + frame.compressed + frame.raw
    )
    assert frame.checksum == blake3(fields).digest()[:16]


def test_merged_batches_decode_to_the_clusters_of_all() -> None:
    merged = merge([encode("Ab", 10), encode("0", 20), encode("cD", 30)])
    check_batch(merged, cluster_limit=LIMIT)
    assert list(decode(merged)) == [10, 11, 20, 30, 31]
    assert decode(merged)[30] == cluster("c")


@pytest.mark.parametrize(
    "field", ["cluster_numbers", "stored_sizes", "digests", "compressed", "raw", "checksum"]
)
def test_flipped_bit_of_any_field_is_corruption(field: str) -> None:
    frame = encode("A0b").to_frame()
    damaged = bytearray(getattr(frame, field))
    damaged[len(damaged) // 2] ^= 4
    setattr(frame, field, bytes(damaged))
    with pytest.raises(FrameCorrupt):
        from_frame(frame, cluster_limit=LIMIT)


GOOD: dict[str, Any] = {
    "numbers": [5, 6, 9],
    "sizes": [100, 65536, 0],
    "digests": bytes(32) + ZERO_DIGEST,
    "compressed": bytes(100),
    "raw": bytes(65536),
}


def batch_of(**changes: Any) -> EncodedClusters:
    facts = GOOD | changes
    return EncodedClusters(
        np.array(facts["numbers"], np.uint32),
        np.array(facts["sizes"], np.uint32),
        facts["digests"],
        facts["compressed"],
        facts["raw"],
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"numbers": [], "sizes": [], "digests": b""}, "without clusters"),
        ({"sizes": [100, 65536]}, "sizes"),
        ({"digests": bytes(47)}, "digest bytes"),
        ({"numbers": [4, 6, 9]}, "out of order"),
        ({"numbers": [5, 5, 9]}, "ascending"),
        ({"numbers": [5, 9, 6]}, "ascending"),
        ({"numbers": [5, 6, 8192]}, "two regions"),
        ({"numbers": [5, 6, LIMIT]}, "beyond"),
        ({"numbers": [5, 6, 0xFFFFFFFF]}, "beyond"),
        ({"sizes": [100, 65537, 0]}, "over"),
        ({"sizes": [101, 65536, 0]}, "add up"),
        ({"sizes": [0xFFFFFFFF, 65536, 101]}, "over"),
        ({"sizes": [100, 0, 0]}, "add up"),
        ({"compressed": b""}, "add up"),
        ({"raw": bytes(65535)}, "add up"),
        ({"digests": bytes(48)}, "zero cluster"),
    ],
)
def test_batch_that_breaks_a_rule_is_refused(changes: dict[str, Any], problem: str) -> None:
    check_batch(batch_of(), cluster_limit=LIMIT, after_cluster=4)
    with pytest.raises(FrameInvalid, match=problem):
        check_batch(batch_of(**changes), cluster_limit=LIMIT, after_cluster=4)


def test_frame_of_odd_array_length_is_refused() -> None:
    frame = batch_of().to_frame()
    frame.cluster_numbers += b"\0"
    fields = (
        frame.cluster_numbers + frame.stored_sizes + frame.digests + frame.compressed + frame.raw
    )
    frame.checksum = blake3(fields).digest(16)
    with pytest.raises(FrameInvalid, match="whole 32-bit"):
        from_frame(frame, cluster_limit=LIMIT)


class TestDamagedClusters:
    def test_clusters_before_the_damage_are_good(self) -> None:
        batch = encode("AbC")
        compressed = bytearray(batch.compressed)
        compressed[-5] ^= 1
        damaged = replace(batch, compressed=bytes(compressed))
        decoding = ClusterDecoder().decode(damaged)
        assert [next(decoding), next(decoding)] == [(0, cluster("A")), (1, cluster("b"))]
        with pytest.raises(ClusterDamaged, match="cluster 2"):
            next(decoding)

    @pytest.mark.parametrize("kind", ["A", "b", "0"])
    def test_wrong_digest_is_damage(self, kind: str) -> None:
        with pytest.raises(ClusterDamaged, match="digest"):
            decode(replace(encode(kind), digests=bytes(16)))

    @pytest.mark.parametrize("claimed", [CLUSTER_BYTES + 1, 1 << 34, 1 << 60])
    def test_frame_that_claims_to_be_huge_costs_no_memory(self, claimed: int) -> None:
        forged = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", claimed) + b"\x01\0\0"
        batch = EncodedClusters(
            np.array([0], np.uint32), np.array([len(forged)], np.uint32), bytes(16), forged, b""
        )
        with pytest.raises(ClusterDamaged):
            decode(batch)

    @pytest.mark.parametrize("length", [0, 1, 65535, 65537, 200000])
    def test_frame_of_another_length_is_damage(self, length: int) -> None:
        data = b"x" * length
        for with_size in (True, False):
            stored = zstandard.ZstdCompressor(write_content_size=with_size).compress(data)
            batch = EncodedClusters(
                np.array([0], np.uint32),
                np.array([len(stored)], np.uint32),
                cluster_digest(data),
                stored,
                b"",
            )
            # Even under the digest of its own content.
            with pytest.raises(ClusterDamaged):
                decode(batch)
