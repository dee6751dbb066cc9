"""Disks: chains of sparse links hold exactly what the guest wrote."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.disks.disk import DiskBusy, DiskSpec, SimulatedDisk
from simulator.disks.link import GRAIN, ChainView, Link
from simulator.disks.sparse import data_extents, stored_bytes
from simulator.machines import SimulatedVm

CAPACITY = 8 * GRAIN + 1536  # the last grain is cut short


def new_vm(folder: Path, *specs: DiskSpec, **options: object) -> SimulatedVm:
    vm = SimulatedVm("1", "vm", folder=folder, touched=lambda: None, record_to=None, **options)  # type: ignore[arg-type]
    for spec in specs:
        vm.add_disk(spec)
    return vm


@pytest.fixture
def vm(tmp_path: Path) -> SimulatedVm:
    return new_vm(tmp_path, DiskSpec(CAPACITY))


OFFSET = st.integers(0, CAPACITY - 1)
LENGTH = st.integers(1, 3 * GRAIN)
STEP = st.one_of(
    st.tuples(st.sampled_from(["write", "zero", "trim"]), OFFSET, LENGTH),
    st.tuples(st.sampled_from(["snapshot", "remove", "revert"]), st.integers(0, 9), st.just(0)),
)


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(STEP, max_size=25))
def test_disk_and_snapshots_read_as_a_plain_copy_would_after_any_steps(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    vm = new_vm(tmp_path_factory.mktemp("disks"), DiskSpec(CAPACITY))
    disk = vm.disks[0]
    live = bytearray(CAPACITY)
    frozen: dict[str, bytes] = {}
    try:
        for number, (step, at, length) in enumerate(steps):
            length = min(length, CAPACITY - at)
            snapshots = vm.snapshots
            if step == "write":
                data = bytes([number % 255 + 1]) * length
                disk.write(at, data)
                live[at : at + length] = data
            elif step in ("zero", "trim"):
                getattr(disk, step)(at, length)
                live[at : at + length] = bytes(length)
            elif step == "snapshot":
                frozen[vm.create_snapshot(f"s{number}").moid] = bytes(live)
            elif snapshots and step == "remove":
                gone = snapshots[at % len(snapshots)]
                vm.remove_snapshot(gone)
                del frozen[gone.moid]
            elif snapshots:
                back = snapshots[at % len(snapshots)]
                vm.revert(back)
                live[:] = frozen[back.moid]
            assert disk.content == live
            for snapshot in vm.snapshots:
                assert vm.frozen_content(snapshot, disk.key) == frozen[snapshot.moid]
        vm.remove_all_snapshots()
        assert disk.content == live
        assert vm.links(disk) == [disk.current]
    finally:
        vm.close()


def test_large_disk_costs_nothing_until_written(tmp_path: Path) -> None:
    vm = new_vm(tmp_path, DiskSpec(102 << 30))
    disk = vm.disks[0]
    disk.write(50 << 30, b"x" * GRAIN)
    vm.create_snapshot("one")
    assert sum(stored_bytes(link.path) for link in vm.links(disk)) <= 4 * GRAIN
    assert disk.read((50 << 30) - 1, 3) == b"\0xx"


def test_trim_frees_storage_and_zero_keeps_the_grain_allocated(vm: SimulatedVm) -> None:
    disk = vm.disks[0]
    disk.write(0, b"x" * 4 * GRAIN)
    disk.zero(0, GRAIN)
    disk.trim(GRAIN, GRAIN)
    assert disk.allocated(disk.current)[:5].tolist() == [True, False, True, True, False]
    assert list(data_extents(disk.current.fd, 0, 2 * GRAIN)) == []


def test_trim_in_a_delta_hides_what_the_parent_holds(vm: SimulatedVm) -> None:
    disk = vm.disks[0]
    disk.write(0, b"x" * 2 * GRAIN)
    vm.create_snapshot("one")
    disk.trim(0, GRAIN)
    assert disk.read(0, 2 * GRAIN) == bytes(GRAIN) + b"x" * GRAIN
    assert disk.allocated(disk.current)[:2].tolist() == [False, True]
    vm.remove_all_snapshots()
    assert disk.allocated(disk.current)[:2].tolist() == [False, True]
    assert list(data_extents(disk.current.fd, 0, GRAIN)) == []


@pytest.mark.parametrize(("offset", "length"), [(-1, 10), (0, 0), (CAPACITY, 1), (CAPACITY - 1, 2)])
def test_guest_cannot_reach_outside_its_disk(vm: SimulatedVm, offset: int, length: int) -> None:
    disk = vm.disks[0]
    calls: list[Callable[[], object]] = [
        lambda: disk.write(offset, b"x" * length),
        lambda: disk.zero(offset, length),
        lambda: disk.trim(offset, length),
        lambda: disk.read(offset, length),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not inside"):
            call()
    assert disk.content == bytes(CAPACITY)


def test_grown_disk_keeps_its_bytes_and_reads_zeros_behind(vm: SimulatedVm) -> None:
    disk = vm.disks[0]
    disk.write(CAPACITY - 512, b"x" * 512)
    disk.grow(20 * GRAIN)
    assert disk.read(CAPACITY - 512, 1024) == b"x" * 512 + bytes(512)
    disk.write(20 * GRAIN - 1, b"y")
    assert disk.read(20 * GRAIN - 2, 2) == b"\0y"


@pytest.mark.parametrize("capacity", [CAPACITY, CAPACITY - 512, CAPACITY + 100])
def test_grow_to_a_capacity_that_makes_no_sense_is_refused(vm: SimulatedVm, capacity: int) -> None:
    with pytest.raises(ValueError, match="multiple of 512"):
        vm.disks[0].grow(capacity)


def test_grow_with_snapshots_is_refused(vm: SimulatedVm) -> None:
    vm.create_snapshot("one")
    with pytest.raises(ValueError, match="snapshots"):
        vm.disks[0].grow(CAPACITY * 2)


def test_image_is_adopted_with_its_holes(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.write(b"head")
        file.seek(1 << 30)
        file.write(b"tail")
    vm = new_vm(tmp_path, DiskSpec(2 << 30, content=image))
    disk = vm.disks[0]
    assert disk.read(0, 4) == b"head"
    assert disk.read(1 << 30, 5) == b"tail\0"
    assert disk.allocated(disk.current).sum() == 2
    assert stored_bytes(disk.current.path) < 1 << 20


def test_image_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(GRAIN))
    with pytest.raises(ValueError, match="only 512"):
        new_vm(tmp_path, DiskSpec(512, content=image))


def test_links_are_not_merged_while_a_reader_has_one_open(vm: SimulatedVm) -> None:
    disk = vm.disks[0]
    disk.lease()
    with pytest.raises(DiskBusy), disk.consolidating(0):
        pass
    disk.release()
    with disk.consolidating(0):
        pass


def test_view_of_a_frozen_link_stays_while_the_guest_goes_on(vm: SimulatedVm) -> None:
    disk: SimulatedDisk = vm.disks[0]
    disk.write(0, b"before")
    frozen: Link = disk.current
    vm.create_snapshot("one")
    view = ChainView(frozen)
    disk.write(0, b"after!")
    assert view.read(0, 6) == b"before"
    assert [(one.link is frozen, one.length) for one in view.segments(0, 3 * GRAIN)] == [
        (True, GRAIN),
        (False, 2 * GRAIN),
    ]


def test_device_keys_and_units_follow_the_controller(tmp_path: Path) -> None:
    vm = new_vm(tmp_path, *[DiskSpec(512)] * 8, DiskSpec(512, controller=1))
    assert [disk.unit for disk in vm.disks] == [0, 1, 2, 3, 4, 5, 6, 8, 0]  # 7 is the controller
    assert [disk.key for disk in vm.disks] == [*range(2000, 2007), 2008, 2016]
    with pytest.raises(ValueError, match="already has"):
        vm.add_disk(DiskSpec(512, unit=8))
    with pytest.raises(ValueError, match="unit 7"):
        vm.add_disk(DiskSpec(512, unit=7))


def test_disk_capacity_must_be_whole_sectors(tmp_path: Path) -> None:
    for capacity in (0, -512, 1000):
        with pytest.raises(ValueError, match="512"):
            new_vm(tmp_path / os.urandom(4).hex(), DiskSpec(capacity))
