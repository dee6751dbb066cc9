"""The QCOW2 writer, judged by qemu-img."""

import json
import os
import random
import subprocess
import tempfile
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendense.clusters import CLUSTER_BYTES, REGION_BYTES, REGION_CLUSTERS, cluster_count
from sendense.codec import ClusterEncoder, EncodedClusters, FrameInvalid, merge
from sendense.qcow2 import Qcow2Writer
from sendense.qcow2_format import (
    CapacityInvalid,
    Qcow2Header,
    Qcow2LimitExceeded,
    host_clusters,
    l2_entries,
)
from sendense.qcow2_placement import Cursor, write_all
from sendense.qcow2_tables import ImageTables


def qemu_img(*arguments: object) -> str:
    done = subprocess.run(
        ["qemu-img", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


def assert_clean(image: Path) -> None:
    report = json.loads(qemu_img("check", "--output=json", image))
    assert report["check-errors"] == 0
    assert not {"corruptions", "leaks"} & report.keys(), report


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        yield fd
    finally:
        os.close(fd)


def cluster(kind: str, number: int) -> bytes:
    noise = random.Random(f"{kind}{number}")
    if kind.islower():
        return noise.randbytes(CLUSTER_BYTES)
    return noise.randbytes(700 * (ord(kind) - 64)).ljust(CLUSTER_BYTES, b"q")


DISKS = st.dictionaries(
    st.sampled_from([0, 3, 100, REGION_CLUSTERS - 5, 2 * REGION_CLUSTERS]),
    st.text(alphabet="ABZabz..", max_size=12),
    max_size=4,
)


@given(disk=DISKS, beyond=st.integers(0, 400), frame_clusters=st.integers(1, 8))
@settings(deadline=None, max_examples=30)
def test_flat_image_is_clean_and_has_the_disks_bytes(
    disk: dict[int, str], beyond: int, frame_clusters: int
) -> None:
    clusters = {
        number: cluster(kind, number)
        for start, text in disk.items()
        for number, kind in enumerate(text, start=start)
        if kind != "."
    }
    last = max(clusters, default=0)
    capacity_bytes = last * CLUSTER_BYTES + 512 + beyond * 512
    clusters = {
        number: data[: capacity_bytes - number * CLUSTER_BYTES].ljust(CLUSTER_BYTES, b"\0")
        for number, data in sorted(clusters.items())
    }
    with tempfile.TemporaryDirectory() as folder:
        image, raw = Path(folder) / "disk.qcow2", Path(folder) / "disk.raw"
        with new_file(image) as fd:
            writer = Qcow2Writer(fd, capacity_bytes)
            for batch in frames(clusters, frame_clusters):
                writer.append(batch)
            writer.finish()
        with raw.open("wb") as file:
            file.truncate(capacity_bytes)
            for number, data in clusters.items():
                file.seek(number * CLUSTER_BYTES)
                file.write(data[: capacity_bytes - number * CLUSTER_BYTES])
        assert_clean(image)
        identical = qemu_img("compare", "-f", "qcow2", "-F", "raw", image, raw)
        assert identical == "Images are identical.\n"


def frames(clusters: dict[int, bytes], frame_clusters: int) -> Iterator[EncodedClusters]:
    encoder = ClusterEncoder()
    waiting: list[EncodedClusters] = []
    for number, data in clusters.items():
        batch = encoder.encode(number, data, keep_zeros=True)
        if waiting and (len(waiting) == frame_clusters or waiting[0].region != batch.region):
            yield merge(waiting)
            waiting = []
        waiting.append(batch)
    if waiting:
        yield merge(waiting)


def test_image_over_a_backing_file_shows_it_and_hides_it(tmp_path: Path) -> None:
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(b"B" * (3 * CLUSTER_BYTES))
    with new_file(top) as fd:
        writer = Qcow2Writer(fd, 3 * CLUSTER_BYTES, "base.raw", "raw")
        data = bytes(CLUSTER_BYTES) + cluster("A", 1)
        writer.append(ClusterEncoder().encode(0, data, keep_zeros=True))
        writer.finish()
    assert_clean(top)
    flat = tmp_path / "flat.raw"
    qemu_img("convert", "-O", "raw", top, flat)
    assert flat.read_bytes() == data + b"B" * CLUSTER_BYTES


def test_frames_out_of_order_or_beyond_the_disk_are_refused(tmp_path: Path) -> None:
    with new_file(tmp_path / "i") as fd:
        writer = Qcow2Writer(fd, 4 * CLUSTER_BYTES)
        encoder = ClusterEncoder()
        writer.append(encoder.encode(2, cluster("A", 2), keep_zeros=False))
        for number in (2, 1, 4):
            with pytest.raises(FrameInvalid):
                writer.append(encoder.encode(number, cluster("A", 0), keep_zeros=False))
        writer.finish()
    assert_clean(tmp_path / "i")


@pytest.mark.parametrize("capacity_bytes", [0, -512, 1, 513, (1 << 48) + 512])
def test_capacity_that_cannot_be_is_refused(capacity_bytes: int, tmp_path: Path) -> None:
    with new_file(tmp_path / "i") as fd, pytest.raises(CapacityInvalid):
        Qcow2Writer(fd, capacity_bytes)


@pytest.mark.parametrize(
    "places_mib",
    [[0, 1024, 2048, 3072], [0, 2048, 4096, 8192], [2047, 2049, 9000], [5000]],
    ids=str,
)
def test_refcounts_are_right_in_a_file_of_many_gibibytes(
    tmp_path: Path, places_mib: list[int]
) -> None:
    image = tmp_path / "large.qcow2"
    with new_file(image) as fd:
        cursor = Cursor()
        tables = ImageTables(fd, 64 * REGION_BYTES, cursor, backing_file=None)
        for region, mib in enumerate(places_mib):
            at = max(mib << 20, CLUSTER_BYTES)
            offsets = np.array([at, at + CLUSTER_BYTES - 300, at + 2 * CLUSTER_BYTES], np.uint64)
            sizes = np.array([500, 600, CLUSTER_BYTES], np.uint32)
            cursor.position = at + 3 * CLUSTER_BYTES
            os.ftruncate(fd, cursor.position)
            tables.add_region(region, np.array([0, 7, 9], np.uint32), offsets, sizes)
        write_all(fd, [tables.finish()], 0)
    assert_clean(image)


def test_refcounts_count_the_blocks_that_hold_them(tmp_path: Path) -> None:
    """The last block is full up to its end, with the tables still to come."""
    for spare in range(6):
        image = tmp_path / f"{spare}.qcow2"
        with new_file(image) as fd:
            cursor = Cursor((32768 - spare) * CLUSTER_BYTES)
            os.ftruncate(fd, cursor.position)
            tables = ImageTables(fd, CLUSTER_BYTES, cursor, backing_file=None)
            tables.add_region(
                0,
                np.array([0], np.uint32),
                np.array([cursor.position - CLUSTER_BYTES], np.uint64),
                np.array([CLUSTER_BYTES], np.uint32),
            )
            write_all(fd, [tables.finish()], 0)
        assert_clean(image)


def test_tables_of_a_disk_of_16_tebibytes_need_little_memory(tmp_path: Path) -> None:
    """Full of data that does not compress, which is placed but not written."""
    image = tmp_path / "huge.qcow2"
    numbers = np.arange(REGION_CLUSTERS, dtype=np.uint32)
    sizes = np.full(REGION_CLUSTERS, CLUSTER_BYTES, np.uint32)
    regions = 256  # of 32768: what is held must not grow with them
    with new_file(image) as fd:
        cursor = Cursor()
        tables = ImageTables(fd, 16 << 40, cursor, backing_file=None)
        tracemalloc.start()
        try:
            for region in range(regions):
                at = cursor.allocate(REGION_CLUSTERS)
                offsets = (at + numbers.astype(np.int64) * CLUSTER_BYTES).astype(np.uint64)
                tables.add_region(region, numbers, offsets, sizes)
                if region == 16:
                    early, _ = tracemalloc.get_traced_memory()
            late, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert late - early < 1 << 20
        assert peak < 4 << 20
        write_all(fd, [tables.finish()], 0)


def test_refcount_over_16_bits_is_refused(tmp_path: Path) -> None:
    with new_file(tmp_path / "i") as fd:
        cursor = Cursor(4 * CLUSTER_BYTES)
        tables = ImageTables(fd, 16 * REGION_BYTES, cursor, backing_file=None)
        for region in range(8):
            tables.add_region(
                region,
                np.arange(REGION_CLUSTERS, dtype=np.uint32),
                CLUSTER_BYTES + np.arange(REGION_CLUSTERS, dtype=np.uint64),
                np.ones(REGION_CLUSTERS, np.uint32),
            )
        with pytest.raises(Qcow2LimitExceeded):
            tables.finish()


def test_write_all_goes_on_after_a_short_write(tmp_path: Path) -> None:
    calls = []

    def short(fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        calls.append(offset)
        return os.pwritev(fd, [b"".join(parts)[:3]], offset)

    with new_file(tmp_path / "f") as fd:
        write_all(fd, [b"ab", b"", b"cdefg", b"h"], 4, short)
    assert (tmp_path / "f").read_bytes() == b"\0\0\0\0abcdefgh"
    assert calls == [4, 7, 10]


class TestGoldenBytes:
    """The structures of docs/formats.md and of QEMU's qcow2.txt."""

    def test_header_with_a_backing_file(self) -> None:
        header = Qcow2Header(600 << 20, 0x50000, 0x70000, 1, "../job-0/disk-0.qcow2").pack()
        assert header.hex() == (
            "514649fb" "00000003"  # magic, version
            "0000000000000088" "00000015"  # backing file name: where, bytes
            "00000010" "0000000025800000" "00000000"  # cluster_bits, size, encryption
            "00000002" "0000000000050000"  # L1: entries, where
            "0000000000070000" "00000001"  # refcount table: where, clusters
            "00000000" "0000000000000000"  # snapshots
            "0000000000000008" "0000000000000000" "0000000000000000"  # features
            "00000004" "00000070" "01" "00000000000000"  # refcount_order, length, zstd
            "e2792aca" "00000005" "71636f7732000000"  # backing format: qcow2
            "00000000" "00000000"  # end of extensions
            + b"../job-0/disk-0.qcow2".hex()
        )  # fmt: skip

    def test_header_without_a_backing_file(self) -> None:
        header = Qcow2Header(512, 0x50000, 0x70000, 1).pack()
        assert len(header) == 120
        assert header[8:20] == bytes(12)

    def test_backing_file_name_over_1023_bytes_is_refused(self) -> None:
        Qcow2Header(512, 0, 0, 1, "x" * 1023).pack()
        with pytest.raises(Qcow2LimitExceeded):
            Qcow2Header(512, 0, 0, 1, "ä" * 512).pack()

    def test_entries(self) -> None:
        offsets = np.array([0x10000, 0x20000, 0x101FF, 0x10200, 0, 0x1FFFF], np.uint64)
        sizes = np.array([512, 65536, 1, 513, 0, 65535], np.uint32)
        entries = l2_entries(offsets, sizes, zero_entry=1)
        assert [f"{entry:016x}" for entry in entries.tolist()] == [
            "4000000000010000",  # one sector
            "8000000000020000",  # raw
            "40000000000101ff",  # the last byte of a sector
            "4040000000010200",  # two sectors
            "0000000000000001",  # zeros
            "600000000001ffff",  # 129 sectors
        ]
        assert sorted(host_clusters(offsets, sizes).tolist()) == [1, 1, 1, 1, 2, 2]

    def test_cluster_count_of_the_header_covers_the_disk(self) -> None:
        assert cluster_count(REGION_BYTES + 512) == REGION_CLUSTERS + 1
        l1_entries = Qcow2Header(REGION_BYTES + 512, 0, 0, 1).pack()[36:40]
        assert l1_entries == b"\0\0\0\2"
