"""Changed block tracking: nothing that changed is missing, and resets are noticed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.disks.disk import DiskSpec
from simulator.disks.link import GRAIN
from simulator.disks.tracking import REVERTED_TRACKING, ChangeId, RevertedTracking
from simulator.machines import OperationRefused, SimulatedVm, Snapshot
from tests.unit.simulator.test_disks import CAPACITY, new_vm


@pytest.fixture
def vm(tmp_path: Path) -> SimulatedVm:
    """Tracking asked for, not yet active."""
    return new_vm(tmp_path, DiskSpec(CAPACITY), change_tracking_enabled=True)


def frozen_id(snapshot: Snapshot) -> ChangeId:
    found = snapshot.disks[0].change_id
    assert found
    return found


def change_id(snapshot: Snapshot) -> str:
    found = snapshot.disks[0].change_id
    assert found is not None
    return str(found)


def changed(
    vm: SimulatedVm, snapshot: Snapshot | None, since: str, start: int = 0
) -> list[tuple[int, int]]:
    capacity, areas = vm.changed_areas(snapshot, 2000, start, since, star="allocated")
    assert capacity == CAPACITY
    return [(one.start, one.length) for one in areas]


@settings(deadline=None, max_examples=50)
@given(
    rounds=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["write", "zero", "trim"]),
                st.integers(0, CAPACITY - 1),
                st.integers(1, 2 * GRAIN),
            ),
            max_size=4,
        ),
        min_size=2,
        max_size=5,
    )
)
def test_every_changed_byte_is_in_an_area_between_any_two_snapshots(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[str, int, int]]]
) -> None:
    vm = new_vm(tmp_path_factory.mktemp("cbt"), DiskSpec(CAPACITY), change_tracking_enabled=True)
    disk = vm.disks[0]
    taken: list[tuple[str, bytes]] = []
    try:
        for number, steps in enumerate(rounds):
            for step, at, length in steps:
                length = min(length, CAPACITY - at)
                if step == "write":
                    disk.write(at, bytes([number + 1]) * length)
                else:
                    getattr(disk, step)(at, length)
            snapshot = vm.create_snapshot(str(number))
            now = disk.content
            for since, before in taken:
                differs = np.frombuffer(before, np.uint8) != np.frombuffer(now, np.uint8)
                for start, length in changed(vm, snapshot, since):
                    assert start % GRAIN == 0
                    assert length % GRAIN == 0 or start + length == CAPACITY
                    differs[start : start + length] = False
                assert not differs.any()
            taken.append((change_id(snapshot), now))
            if number % 2:
                vm.remove_snapshot(snapshot)
    finally:
        vm.close()


def test_tracking_becomes_active_at_the_first_stun_only(tmp_path: Path) -> None:
    vm = new_vm(tmp_path, DiskSpec(CAPACITY))
    vm.reconfigure(change_tracking_enabled=True)
    assert vm.disks[0].tracking is None
    snapshot = vm.create_snapshot("one")
    assert change_id(snapshot)


@pytest.mark.parametrize("stun", ["create", "remove", "power-on", "resume"])
def test_tracking_starts_at_every_kind_of_stun(tmp_path: Path, stun: str) -> None:
    power = {"power-on": "poweredOff", "resume": "suspended"}.get(stun, "poweredOn")
    vm = new_vm(tmp_path, DiskSpec(CAPACITY), power_state=power)
    older = vm.create_snapshot("older")
    vm.reconfigure(change_tracking_enabled=True)
    assert vm.disks[0].tracking is None
    if stun == "create":
        vm.create_snapshot("one")
    elif stun == "remove":
        vm.remove_snapshot(older)
    else:
        vm.power("poweredOn")
    assert vm.disks[0].tracking is not None


def test_change_ids_have_the_documented_form_and_grow(vm: SimulatedVm) -> None:
    first, second = vm.create_snapshot("one"), vm.create_snapshot("two")
    ids = [ChangeId.parse(change_id(one)) for one in (first, second)]
    assert ids[0] is not None and ids[1] is not None
    assert ids[0].uuid == ids[1].uuid
    assert ids[0].sequence < ids[1].sequence
    assert change_id(first).count(" ") == 14


def test_areas_are_grains_and_the_last_is_clipped_to_capacity(vm: SimulatedVm) -> None:
    since = change_id(vm.create_snapshot("one"))
    disk = vm.disks[0]
    disk.write(10, b"x")
    disk.zero(GRAIN - 1, 2)
    disk.trim(CAPACITY - 1, 1)
    found = changed(vm, vm.create_snapshot("two"), since)
    assert found == [(0, 2 * GRAIN), (8 * GRAIN, CAPACITY - 8 * GRAIN)]


def test_areas_start_where_they_were_asked_from(vm: SimulatedVm) -> None:
    since = change_id(vm.create_snapshot("one"))
    vm.disks[0].write(0, b"x" * 4 * GRAIN)
    second = vm.create_snapshot("two")
    assert changed(vm, second, since, start=GRAIN + 512) == [(GRAIN + 512, 3 * GRAIN - 512)]


def test_changes_after_the_snapshot_are_not_in_its_answer(vm: SimulatedVm) -> None:
    first = vm.create_snapshot("one")
    vm.disks[0].write(0, b"x")
    assert changed(vm, first, change_id(first)) == []


def test_allocated_areas_are_those_of_the_frozen_disk(vm: SimulatedVm) -> None:
    disk = vm.disks[0]
    disk.write(2 * GRAIN, b"x")
    snapshot = vm.create_snapshot("one")
    disk.write(5 * GRAIN, b"y")
    assert changed(vm, snapshot, "*") == [(2 * GRAIN, GRAIN)]


@pytest.mark.parametrize(
    "bad", ["", "nonsense", "00 " * 7 + "00-" + "00 " * 7 + "00/3"], ids=["empty", "text", "other"]
)
def test_unknown_change_id_is_a_file_fault(vm: SimulatedVm, bad: str) -> None:
    snapshot = vm.create_snapshot("one")
    with pytest.raises(OperationRefused) as refused:
        changed(vm, snapshot, bad)
    assert refused.value.kind == "FileFault"


def test_change_id_of_the_future_is_a_file_fault(vm: SimulatedVm) -> None:
    first = vm.create_snapshot("one")
    second = vm.create_snapshot("two")
    with pytest.raises(OperationRefused, match="not known"):
        changed(vm, first, change_id(second))


@pytest.mark.parametrize("start", [-1, CAPACITY, CAPACITY + GRAIN])
def test_asking_outside_the_disk_is_a_file_fault(vm: SimulatedVm, start: int) -> None:
    snapshot = vm.create_snapshot("one")
    with pytest.raises(OperationRefused) as refused:
        changed(vm, snapshot, "*", start)
    assert refused.value.kind == "FileFault"


def test_untracked_disk_and_running_vm_without_snapshot_are_file_faults(tmp_path: Path) -> None:
    vm = new_vm(tmp_path, DiskSpec(CAPACITY))
    snapshot = vm.create_snapshot("one")
    for asked in (snapshot, None):
        with pytest.raises(OperationRefused) as refused:
            changed(vm, asked, "*")
        assert refused.value.kind == "FileFault"


def test_stopped_vm_answers_without_a_snapshot(vm: SimulatedVm) -> None:
    since = change_id(vm.create_snapshot("one"))
    vm.disks[0].write(0, b"x")
    vm.power("poweredOff")
    assert changed(vm, None, since) == [(0, GRAIN)]


@pytest.mark.parametrize("event", ["power-loss", "revert"])
def test_reset_makes_old_change_ids_worthless(vm: SimulatedVm, event: str) -> None:
    first = vm.create_snapshot("one")
    if event == "revert":
        vm.revert(first)
    else:
        vm.power_loss()
    second = vm.create_snapshot("two")
    with pytest.raises(OperationRefused) as refused:
        changed(vm, second, change_id(first))
    assert refused.value.kind == "FileFault"
    assert change_id(first).split("/")[0] != change_id(second).split("/")[0]


def test_grown_part_counts_as_changed(vm: SimulatedVm) -> None:
    first = vm.create_snapshot("one")
    since = change_id(first)
    vm.remove_snapshot(first)
    vm.disks[0].grow(12 * GRAIN)
    second = vm.create_snapshot("two")
    _, areas = vm.changed_areas(second, 2000, 0, since, star="allocated")
    assert [(one.start, one.length) for one in areas] == [(9 * GRAIN, 3 * GRAIN)]


def test_independent_disks_are_neither_frozen_nor_tracked(tmp_path: Path) -> None:
    vm = new_vm(
        tmp_path,
        DiskSpec(CAPACITY),
        DiskSpec(CAPACITY, mode="independent_persistent"),
        change_tracking_enabled=True,
    )
    snapshot = vm.create_snapshot("one")
    assert [one.disk.key for one in snapshot.disks] == [2000]
    assert [one.key for one in snapshot.others] == [2001]
    assert vm.disks[1].tracking is None
    with pytest.raises(OperationRefused, match="not part of the snapshot"):
        vm.changed_areas(snapshot, 2001, 0, "*", star="allocated")


def test_revert_that_takes_tracking_back_forgets_what_the_disk_lost(vm: SimulatedVm) -> None:
    disk = vm.disks[0]
    older = vm.create_snapshot("by hand")
    disk.write(0, b"lost")
    base = vm.create_snapshot("base")
    vm.remove_snapshot(base)
    vm.revert(older, tracking="back")
    assert disk.read(0, 4) == bytes(4)
    disk.write(3 * GRAIN, b"new")
    first = vm.create_snapshot("one")
    disk.write(5 * GRAIN, b"newer")
    second = vm.create_snapshot("two")
    assert change_id(base) == change_id(first)  # another state under the same id
    assert changed(vm, first, change_id(base)) == []
    assert changed(vm, second, change_id(base)) == [(5 * GRAIN, GRAIN)]
    assert changed(vm, second, change_id(older)) == [(3 * GRAIN, GRAIN), (5 * GRAIN, GRAIN)]


def test_revert_that_empties_tracking_forgets_all_and_numbers_go_on(vm: SimulatedVm) -> None:
    disk = vm.disks[0]
    base = vm.create_snapshot("base")
    vm.remove_snapshot(base)
    disk.write(0, b"kept")
    held = vm.create_snapshot("by hand")
    disk.write(GRAIN, b"lost")
    last = base
    for _ in range(2):
        vm.revert(held, tracking="emptied")
        assert disk.read(0, 4) == b"kept"
        disk.write(3 * GRAIN, b"new")
        now = vm.create_snapshot("now")
        assert frozen_id(now).uuid == frozen_id(base).uuid
        assert frozen_id(now).sequence > max(frozen_id(last).sequence, frozen_id(held).sequence)
        for since in (base, held):  # no word of the first grain
            assert changed(vm, now, change_id(since)) == [(3 * GRAIN, GRAIN)]
        last = now


def test_revert_refuses_a_word_that_it_does_not_know(vm: SimulatedVm) -> None:
    with pytest.raises(ValueError, match="new, back, emptied"):
        vm.revert(vm.create_snapshot("one"), tracking="kept")  # type: ignore[arg-type]


@pytest.mark.parametrize("tracking", REVERTED_TRACKING)
def test_revert_to_an_untracked_snapshot_resets_tracking_in_any_case(
    tmp_path: Path, tracking: RevertedTracking
) -> None:
    vm = new_vm(tmp_path, DiskSpec(CAPACITY))
    older = vm.create_snapshot("untracked")
    vm.reconfigure(change_tracking_enabled=True)
    since = change_id(vm.create_snapshot("one"))
    vm.revert(older, tracking=tracking)
    assert not vm.change_tracking_enabled
    vm.reconfigure(change_tracking_enabled=True)
    assert change_id(vm.create_snapshot("two")).split("/")[0] != since.split("/")[0]
