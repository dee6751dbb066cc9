"""Random chains of random disks: qemu-img and our own reader see what the guest saw."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from hub.repository import Repository
from sendense.clusters import CLUSTER_BYTES, REGION_CLUSTERS
from tests.unit.hub.repository.disks import (
    BackedUpDisk,
    Drawing,
    GuestDisk,
    assert_clean,
    assert_same_as_guest,
    qemu_img,
)

TEXTS = st.text(alphabet="ABCMZabz0..", min_size=0, max_size=14)
STARTS = st.sampled_from([0, 5, REGION_CLUSTERS - 4, REGION_CLUSTERS, 2 * REGION_CLUSTERS - 2])
DRAWINGS: st.SearchStrategy[Drawing] = st.dictionaries(STARTS, TEXTS, max_size=3)
SECTORS = st.one_of(
    st.integers(1, 20 * 128),
    st.integers(REGION_CLUSTERS * 128 - 300, REGION_CLUSTERS * 128 + 300),
    st.integers(2 * REGION_CLUSTERS * 128, 2 * REGION_CLUSTERS * 128 + 999),
)


@given(
    sectors=SECTORS,
    growths=st.lists(st.sampled_from([0, 0, 1, 127, 5000, REGION_CLUSTERS * 128]), max_size=3),
    drawings=st.lists(DRAWINGS, min_size=4, max_size=4),
    frame_clusters=st.integers(1, 9),
)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_chain_reads_as_the_guest_saw_it_when_drawn_at_random(
    sectors: int, growths: list[int], drawings: list[Drawing], frame_clusters: int
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        repository = Repository.create(Path(scratch) / "r", repository_id="r", name="r")
        backup = BackedUpDisk(repository, GuestDisk(sectors * 512))
        for growth, drawing in zip([0, *growths], drawings, strict=False):
            backup.disk.capacity_bytes += growth * 512
            sealed = backup.backup(drawing, frame_clusters=frame_clusters)
            note(f"{sealed}")
            assert sealed.root_digest == backup.disk.root_digest()
            assert backup.restored() == backup.disk.non_zero()
            image = repository.path / sealed.path
            assert_clean(image)
            assert_same_as_guest(image, backup.disk, Path(scratch))


@given(drawings=st.lists(DRAWINGS, min_size=2, max_size=3))
@settings(deadline=None, max_examples=10)
def test_conversion_by_qemu_gives_the_guests_bytes(drawings: list[Drawing]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        repository = Repository.create(Path(scratch) / "r", repository_id="r", name="r")
        backup = BackedUpDisk(repository, GuestDisk(30 * CLUSTER_BYTES + 512))
        for drawing in drawings:
            backup.backup(drawing)
        raw = Path(scratch) / "converted.raw"
        qemu_img("convert", "-O", "raw", repository.path / backup.paths[0], raw)
        guest = backup.disk.raw_file(Path(scratch) / "guest.raw")
        assert raw.read_bytes() == guest.read_bytes()
