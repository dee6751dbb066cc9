"""Manifests: cut anywhere, damaged anywhere, as a stream and sealed; golden bytes."""

import json
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from hub.repository import LayerDamaged, Repository
from hub.repository.files import Descriptors
from hub.repository.journal import JournalReader, SealedManifest
from hub.repository.paths import manifest_path
from hub.repository.records import (
    Envelope,
    FrameRecord,
    ManifestInvalid,
    RecordKind,
    Trailer,
    pack_record,
)
from sendense.clusters import CLUSTER_BYTES, REGION_CLUSTERS
from sendense.codec import EncodedClusters
from sendense.qcow2_placement import Placement
from tests.unit.hub.repository.disks import BackedUpDisk, GuestDisk, encoded, identity


def journal_of(repository: Repository, frames: int) -> Path:
    """A journal of an upload that goes on: header and that many frames of one or two clusters."""
    disk = GuestDisk(4 * REGION_CLUSTERS * CLUSTER_BYTES)
    writer = repository.new_layer(identity("job", disk.capacity_bytes), None)
    disk.write({index * 5000: "Ab" for index in range(frames)})
    for batch in encoded(disk, sorted(disk.clusters), keep_zeros=False, frame_clusters=2):
        writer.append(batch)
    writer.sync()
    return repository.path / "ctx-backup-pgtest1-1/job/disk-0.manifest"


def read(path: Path) -> tuple[list[bytes], int, str]:
    """What a journal holds: the frames' checksums, the valid length, the problem."""
    with JournalReader(path) as journal:
        checksums = [placed.frame.frame_checksum for placed in journal.frames()]
        return checksums, journal.valid_bytes, journal.problem


def ends_of_records(data: bytes) -> list[int]:
    ends, at = [], 0
    while at < len(data):
        envelope = Envelope.unpack(data[at : at + Envelope.BYTES])
        at += Envelope.BYTES + envelope.body_bytes
        ends.append(at)
    return ends


def test_journal_gives_the_valid_prefix_when_cut_at_every_byte(repository: Repository) -> None:
    path = journal_of(repository, 5)
    data = path.read_bytes()
    ends = ends_of_records(data)
    whole, length, problem = read(path)
    assert (len(whole), length, problem) == (5, len(data), "")
    cut = path.with_name("cut")
    for at in range(len(data)):
        cut.write_bytes(data[:at])
        if at < ends[0]:
            with pytest.raises(ManifestInvalid):
                read(cut)
            continue
        frames = sum(end <= at for end in ends) - 1
        assert read(cut) == (
            whole[:frames],
            ends[frames],
            "" if at in ends else "a record is cut off",
        )


def test_journal_ends_before_the_damage_when_any_byte_is_flipped(repository: Repository) -> None:
    path = journal_of(repository, 4)
    data = path.read_bytes()
    ends = ends_of_records(data)
    whole, _, _ = read(path)
    damaged = path.with_name("damaged")
    for at in range(len(data)):
        damaged.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        if at < ends[0]:
            with pytest.raises(ManifestInvalid):
                read(damaged)
            continue
        frames = sum(end <= at for end in ends) - 1
        checksums, length, problem = read(damaged)
        assert (checksums, length) == (whole[:frames], ends[frames])
        assert problem


def test_journal_ends_where_records_were_dropped_or_repeated(repository: Repository) -> None:
    path = journal_of(repository, 4)
    data = path.read_bytes()
    ends = ends_of_records(data)
    whole, _, _ = read(path)
    path.write_bytes(data[: ends[1]] + data[ends[2] :])
    assert read(path) == (whole[:1], ends[1], "record 3 stands where record 2 should")
    path.write_bytes(data[: ends[2]] + data[ends[1] :])
    assert read(path) == (whole[:2], ends[2], "record 2 stands where record 3 should")


def test_journal_with_old_bytes_behind_its_end_gives_the_prefix(repository: Repository) -> None:
    path = journal_of(repository, 2)
    data = path.read_bytes()
    path.write_bytes(data + bytes(4096))
    frames, length, problem = read(path)
    assert (len(frames), length, problem) == (2, len(data), "no record begins here")


@pytest.fixture
def sealed(repository: Repository) -> BackedUpDisk:
    backup = BackedUpDisk(repository, GuestDisk(3 * REGION_CLUSTERS * CLUSTER_BYTES + 512))
    backup.backup({0: "A", 8191: "b0Cd"})
    backup.backup({8192: "X"}, frame_clusters=2)
    return backup


def read_sealed(backup: BackedUpDisk) -> list[bytes]:
    """All that a sealed manifest holds, by its table of regions."""
    with Descriptors(backup.repository.path) as files:
        manifest = SealedManifest(files, backup.paths[0])
        return [
            frame.frame_checksum
            for row in manifest.footer.regions
            for frame in manifest.frames(int(row["region"]))
        ]


def test_sealed_manifest_reads_the_same_as_a_stream_and_by_region(sealed: BackedUpDisk) -> None:
    path = sealed.repository.path / manifest_path(sealed.paths[0])
    with JournalReader(path) as journal:
        streamed = [placed.frame.frame_checksum for placed in journal.frames()]
        assert journal.problem == ""
        assert journal.valid_bytes == path.stat().st_size
        assert journal.footer is not None
        assert journal.footer.root_digest == sealed.layers[-1].root_digest
        assert journal.footer.change_id == "change/job-1"
        assert journal.header.base == journal.footer.base
        assert journal.header.base_root_digest == sealed.layers[0].root_digest
        assert journal.header.identity == identity("job-1", sealed.disk.capacity_bytes)
    assert streamed == read_sealed(sealed)
    assert len(streamed) == 1


def test_sealed_manifest_is_refused_when_cut_anywhere(sealed: BackedUpDisk) -> None:
    path = sealed.repository.path / manifest_path(sealed.paths[0])
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at])
        with pytest.raises(LayerDamaged) as damaged:
            read_sealed(sealed)
        assert damaged.value.path == manifest_path(sealed.paths[0])


def test_sealed_manifest_is_refused_when_any_byte_is_flipped(sealed: BackedUpDisk) -> None:
    path = sealed.repository.path / manifest_path(sealed.paths[0])
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :])
        with pytest.raises(LayerDamaged):
            read_sealed(sealed)


def test_frame_checksum_is_that_of_the_stored_bytes(sealed: BackedUpDisk) -> None:
    layer = (sealed.repository.path / sealed.paths[-1]).read_bytes()
    with JournalReader(sealed.repository.path / manifest_path(sealed.paths[-1])) as journal:
        frames = [placed.frame for placed in journal.frames()]
    assert frames
    for frame in frames:
        place = frame.placement
        head = layer[place.head_at : place.head_at + place.head_bytes]
        rest = layer[place.rest_at : place.rest_at + place.rest_bytes]
        raw = layer[place.raw_at : place.raw_at + place.raw_bytes]
        batch = EncodedClusters(frame.numbers, frame.sizes, frame.digests, head + rest, raw)
        assert batch.checksum() == frame.frame_checksum


class TestGoldenBytes:
    """The bytes of docs/formats.md; a change here is a change of the format."""

    def test_envelope(self) -> None:
        record = pack_record(RecordKind.FRAME, 7, b"body")
        start = bytes.fromhex("536e4d72 0200 0000 04000000 07000000".replace(" ", ""))
        assert record == start + blake3(start + b"body").digest(16) + b"body"

    def test_frame_record(self) -> None:
        batch = EncodedClusters(
            np.array([5, 6, 9, 10], np.uint32),
            np.array([100, 65536, 0, 200], np.uint32),
            b"".join(bytes([n]) * 16 for n in (1, 2, 3, 4)),
            bytes(300),
            bytes(65536),
        )
        placement = Placement(70000, 100, 131072, 65536, 196608, 200)
        packed = FrameRecord.pack(batch, placement, bytes(range(16)))
        assert packed.hex() == (
            "05000000" "0a000000" "04000000" "00000000"  # first, last, count, zero
            "7011010000000000" "0000020000000000" "0000030000000000"  # head, raw, rest: where
            "64000000" "00000100" "c8000000" "00000000"  # head, raw, rest: bytes; zero
            "000102030405060708090a0b0c0d0e0f"  # frame checksum
            "05000000" "06000000" "09000000" "0a000000"  # numbers
            "64000000" "00000100" "00000000" "c8000000"  # sizes
            + "01" * 16 + "02" * 16 + "03" * 16 + "04" * 16  # digests
        )  # fmt: skip
        frame = FrameRecord.unpack(packed)
        assert frame.placement == placement
        assert frame.offsets.tolist() == [70000, 131072, 0, 196608]

    def test_trailer(self) -> None:
        start = b"SnSealed" + bytes.fromhex("00010000000000003000000000000000")
        assert Trailer(256, 48).pack() == start + blake3(start).digest(16)

    def test_header_is_json(self, repository: Repository) -> None:
        data = journal_of(repository, 0).read_bytes()
        assert json.loads(data[Envelope.BYTES :]) == {
            "format": 1,
            "cluster_bytes": 65536,
            "identity": {
                "context_id": "ctx-backup-pgtest1-1",
                "job_id": "job",
                "disk_index": 0,
                "vm_name": "pgtest1",
                "vmware_disk_key": 2000,
                "disk_uuid": "6000C29e-0000",
                "disk_label": "Hard disk 1",
                "capacity_bytes": 4 * 512 * 1024 * 1024,
            },
            "base": None,
            "base_root_digest": "",
            "plan_digest": "",
        }


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"first": 6}, id="first cluster is another"),
        pytest.param({"count": 3}, id="count is another"),
        pytest.param({"zero": 1}, id="reserved field is set"),
        pytest.param({"numbers": [5, 5, 9, 10]}, id="not ascending"),
        pytest.param({"numbers": [5, 6, 9, 8192], "last": 8192}, id="two regions"),
        pytest.param({"sizes": [100, 65537, 0, 200]}, id="size over a cluster"),
        pytest.param({"sizes": [100, 65536, 65536, 200]}, id="raw run too short"),
        pytest.param({"sizes": [100, 65536, 0, 201]}, id="compressed runs too short"),
        pytest.param({"head_bytes": 150, "rest_bytes": 150}, id="head cuts a cluster"),
        pytest.param({"raw_at": 131073}, id="raw run not aligned"),
        pytest.param({"rest_at": 1 << 54}, id="place beyond QCOW2"),
    ],
)
def test_frame_record_whose_parts_disagree_is_refused(change: dict[str, object]) -> None:
    facts: dict[str, object] = {
        "first": 5, "last": 10, "count": 4, "zero": 0,
        "head_at": 70000, "raw_at": 131072, "rest_at": 196608,
        "head_bytes": 100, "raw_bytes": 65536, "rest_bytes": 200, "zero_too": 0,
        "checksum": bytes(16),
    }  # fmt: skip
    arrays = {"numbers": [5, 6, 9, 10], "sizes": [100, 65536, 0, 200]}

    def packed(facts: dict[str, object], arrays: dict[str, object]) -> bytes:
        return (
            FrameRecord.LAYOUT.pack(*facts.values())
            + np.array(arrays["numbers"], "<u4").tobytes()
            + np.array(arrays["sizes"], "<u4").tobytes()
            + bytes(64)
        )

    FrameRecord.unpack(packed(facts, dict(arrays)))
    changed_facts = {key: change.get(key, value) for key, value in facts.items()}
    changed_arrays = {key: change.get(key, value) for key, value in arrays.items()}
    with pytest.raises(ManifestInvalid):
        FrameRecord.unpack(packed(changed_facts, changed_arrays))
