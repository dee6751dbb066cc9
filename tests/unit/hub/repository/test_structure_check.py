"""The check before a layer counts as sealed notices what is wrong in the QCOW2 file."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.repository import LayerWriteFailed, Repository
from hub.repository.journal import JournalReader
from hub.repository.paths import manifest_path
from hub.repository.seal import by_region
from hub.repository.structure_check import StructureCheck, StructureWrong
from sendense.clusters import CLUSTER_BYTES, REGION_BYTES
from sendense.qcow2_tables import ImageTables
from tests.unit.hub.repository.disks import BackedUpDisk, GuestDisk, encoded

HEADER_BYTES = 105  # up to and with the compression type; padding follows


@pytest.fixture
def increment(repository: Repository) -> Iterator[BackedUpDisk]:
    backup = BackedUpDisk(repository, GuestDisk(2 * REGION_BYTES + 512))
    backup.backup({0: "AbC"})
    backup.backup({0: "Xy0Z", 8191: "b", 16384: "C"})
    yield backup


def check(backup: BackedUpDisk) -> None:
    image = backup.repository.path / backup.paths[0]
    manifest = backup.repository.path / manifest_path(backup.paths[0])
    with image.open("rb") as file, JournalReader(manifest) as journal:
        checker = StructureCheck(
            file.fileno(),
            capacity_bytes=backup.disk.capacity_bytes,
            backing_file="../job-0/disk-0.qcow2",
        )
        for region, placed in by_region(journal.frames()):
            checker.region(region, [each.frame for each in placed])
        checker.finish()


def tables_of(image: Path) -> list[int]:
    """Offsets of everything that is not data: L1, L2 tables, refcount table and blocks."""
    data = image.read_bytes()
    l1_entries, l1_at, table_at = struct.unpack_from(">IQQ", data, 36)
    l1 = struct.unpack_from(f">{l1_entries}Q", data, l1_at)
    blocks = struct.unpack_from(">8192Q", data, table_at)
    return [l1_at, table_at, *(b for b in blocks if b), *(e & (1 << 56) - 1 for e in l1 if e)]


def test_sound_layer_passes(increment: BackedUpDisk) -> None:
    check(increment)


@pytest.mark.parametrize("bit", [0, 7])
def test_any_flipped_bit_of_the_header_is_noticed(increment: BackedUpDisk, bit: int) -> None:
    image = increment.repository.path / increment.paths[0]
    whole = image.read_bytes()
    for at in range(HEADER_BYTES):
        image.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        with pytest.raises(StructureWrong):
            check(increment)


def test_flipped_bits_of_the_tables_are_noticed(increment: BackedUpDisk) -> None:
    image = increment.repository.path / increment.paths[0]
    whole = image.read_bytes()
    seed = 20240607
    noise = random.Random(seed)
    l1_at, *others = tables_of(image)
    places = [l1_at + at for at in range(3 * 8)]
    for table in others:
        used = [at for at in range(table, table + CLUSTER_BYTES) if whole[at]]
        places += used + [table + noise.randrange(CLUSTER_BYTES) for _ in range(60)]
    assert len(places) > 250
    for at in places:
        image.write_bytes(
            whole[:at] + bytes([whole[at] ^ 1 << noise.randrange(8)]) + whole[at + 1 :]
        )
        try:
            check(increment)
        except StructureWrong:
            continue
        pytest.fail(f"a flipped bit of byte {at} went unnoticed")


@pytest.mark.parametrize("length", [0, 50, CLUSTER_BYTES, -CLUSTER_BYTES, -1])
def test_cut_file_is_noticed(increment: BackedUpDisk, length: int) -> None:
    image = increment.repository.path / increment.paths[0]
    image.write_bytes(image.read_bytes()[:length])
    with pytest.raises(StructureWrong):
        check(increment)


def test_layer_is_not_sealed_when_its_tables_are_wrong(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = BackedUpDisk(repository, GuestDisk(3 * CLUSTER_BYTES))
    backup.disk.write({0: "ABC"})
    writer = backup.writer()
    for batch in encoded(backup.disk, range(3), keep_zeros=False):
        writer.append(batch)
    real = ImageTables.add_region

    def shifted(self, region, within, offsets, sizes):  # type: ignore[no-untyped-def]
        real(self, region, within, offsets + 512, sizes)

    monkeypatch.setattr(ImageTables, "add_region", shifted)
    with pytest.raises(LayerWriteFailed, match="misplaced"):
        writer.seal("change")
    assert not list(repository.path.rglob("*.qcow2"))
    writer.discard()
    assert not list(repository.path.rglob("disk-*"))
