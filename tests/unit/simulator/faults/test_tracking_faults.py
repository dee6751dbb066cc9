"""Tracking that fails, is reset, lies, or answers what makes no sense; as a client sees it.

Rows 10 (paging, order, capacity), 11 (missed blocks) and 12 (trimmed areas) of the field's failures
can be caused here.
"""

from collections.abc import Callable
from typing import Any

import pytest
from pyVmomi import vim

from simulator.disks.disk import DiskSpec
from simulator.disks.link import GRAIN
from simulator.faults.tracking_kinds import CbtOmit
from tests.unit.simulator.conftest import frozen_disks, take_snapshot
from tests.unit.simulator.faults.conftest import CAPACITY, CHANGED, Client

pytestmark = pytest.mark.hostile


def test_file_fault_comes_at_the_offset_and_goes_when_cleared(client: Client) -> None:
    client.site.faults.set("cbt-slice-bytes", bytes="4 MiB")
    fault = client.site.faults.set("file-fault", vm="db 1", disk=0, at_offset="8 MiB")
    assert client.query(4 << 20).length == 4 << 20
    for _ in range(2):
        with pytest.raises(vim.fault.FileFault):
            client.query(8 << 20)
    assert fault.fired == 2
    client.site.faults.clear(fault)
    assert client.query(8 << 20).startOffset == 8 << 20


@pytest.mark.parametrize("disk", [None, 0, 1], ids=["vm", "first-disk", "second-disk"])
def test_reset_gives_the_disks_in_scope_a_new_uuid_once(client: Client, disk: int | None) -> None:
    fault = client.site.faults.set("change-id-uuid", vm="db 1", disk=disk, times=1)
    before = [one.backing.changeId.split("/")[0] for one in frozen_disks(client.snapshot)]
    made = take_snapshot(client.seen, "after the reset")
    after = [one.backing.changeId.split("/")[0] for one in frozen_disks(made)]
    assert [old != new for old, new in zip(before, after, strict=True)] == [
        disk in (None, number) for number in range(2)
    ]
    assert fault.fired == 1
    again = [one.backing.changeId for one in frozen_disks(take_snapshot(client.seen, "next"))]
    assert [one.split("/")[0] for one in again] == after
    if disk != 1:
        client.snapshot = made
        with pytest.raises(vim.fault.FileFault):
            client.query()


def test_missing_change_id_is_of_the_disk_in_scope(client: Client) -> None:
    """Row 14: a VM from a template has none."""
    fault = client.site.faults.set("change-id-missing", vm="db 1", disk=1, times=1)
    ids = [one.backing.changeId for one in frozen_disks(take_snapshot(client.seen, "next"))]
    assert ids[0] and ids[1] is None
    assert fault.fired == 1
    ids = [one.backing.changeId for one in frozen_disks(take_snapshot(client.seen, "last"))]
    assert all(ids)


@pytest.mark.parametrize("slice_bytes", [1000, GRAIN, 3 * GRAIN + 512])
def test_slices_of_any_size_together_tell_all_changes(client: Client, slice_bytes: int) -> None:
    """Row 10: a reader that takes the first slice for everything loses data."""
    client.vm.disks[0].write(CAPACITY - 1, b"z")
    client.snapshot = take_snapshot(client.seen, "third")
    wanted = {number for start, length in CHANGED for number in range(start, start + length)}
    wanted |= set(range(CAPACITY - GRAIN, CAPACITY))
    fault = client.site.faults.set("cbt-slice-bytes", vm="db 1", bytes=slice_bytes)
    offset = CHANGED[0][0] if slice_bytes < GRAIN else 0
    end = offset + 3 * GRAIN if slice_bytes < GRAIN else CAPACITY
    found: set[int] = set()
    while offset < end:
        part = client.query(offset)
        assert part.startOffset == offset
        assert part.length == min(slice_bytes, CAPACITY - offset)
        for one in part.changedArea:
            assert offset <= one.start
            assert one.start + one.length <= offset + part.length
            found |= set(range(one.start, one.start + one.length))
        offset += part.length
    assert found == {number for number in wanted if number < end}
    assert fault.fired > 1


def test_slice_without_length_comes_as_often_as_ordered(client: Client) -> None:
    fault = client.site.faults.set("cbt-zero-slice", times=1)
    first = client.query()
    assert (first.length, list(first.changedArea)) == (0, [])
    assert client.query().length == CAPACITY
    assert fault.fired == 1


def test_slice_that_starts_later_than_asked_leaves_a_gap(client: Client) -> None:
    client.site.faults.set("cbt-gap", times=1, bytes=GRAIN)
    assert client.query(0).startOffset == GRAIN
    assert client.query(0).startOffset == 0
    client.site.faults.assert_all_fired()


def test_unsorted_areas_are_all_there_in_the_wrong_order(client: Client) -> None:
    """Row 10."""
    client.site.faults.set("cbt-unsorted", times=1)
    assert client.areas() == CHANGED[::-1]
    assert client.areas() == CHANGED
    client.site.faults.assert_all_fired()


def test_overlapping_areas_overlap(client: Client) -> None:
    """Row 10."""
    client.site.faults.set("cbt-overlap", times=1)
    first, second, third = client.areas()
    assert (first, third) == (CHANGED[0], CHANGED[1])
    assert first[0] < second[0] < first[0] + first[1]
    assert client.areas() == CHANGED
    client.site.faults.assert_all_fired()


def test_area_or_slice_beyond_capacity_is_in_the_last_answer_only(client: Client) -> None:
    """Row 10: asked past the end."""
    client.site.faults.set("cbt-slice-bytes", bytes=CAPACITY // 2)
    client.site.faults.set("cbt-beyond-capacity", times=1)
    assert client.areas(0) == CHANGED
    assert client.areas(CAPACITY // 2) == [(CAPACITY, GRAIN)]
    client.site.faults.set("cbt-beyond-capacity", times=1, what="slice")
    assert client.query(0).length == CAPACITY // 2
    assert client.query(CAPACITY // 2).length == CAPACITY // 2 + GRAIN
    assert client.query(CAPACITY // 2).length == CAPACITY // 2
    client.site.faults.assert_all_fired()


def test_omitted_range_is_missing_and_told_to_who_ordered_it(client: Client) -> None:
    """Row 11: tracking misses blocks."""
    fault = client.site.faults.set("cbt-omit", vm="db 1", disk=0, offset=3 * GRAIN, length=GRAIN)
    assert client.areas() == [(2 * GRAIN, GRAIN), (4 * GRAIN, GRAIN), CHANGED[1]]
    assert fault.firings[-1].detail == {"areas": [(3 * GRAIN, GRAIN)]}
    client.site.faults.clear(fault)
    assert client.areas() == CHANGED


def test_omitted_share_is_the_same_in_slices_of_any_size(client: Client) -> None:
    """Row 11."""
    fault = client.site.faults.set("cbt-omit", fraction=0.5, seed=11)
    whole = client.areas()
    assert whole != CHANGED
    client.site.faults.set("cbt-slice-bytes", bytes=GRAIN)
    parts = [area for number in range(CAPACITY // GRAIN) for area in client.areas(number * GRAIN)]
    assert [at for at, _ in parts] == [
        start + step for start, length in whole for step in range(0, length, GRAIN)
    ]
    assert isinstance(fault.kind, CbtOmit)
    assert fault.fired > 1


def test_omission_of_what_did_not_change_does_not_fire(client: Client) -> None:
    fault = client.site.faults.set("cbt-omit", offset=50 * GRAIN, length=GRAIN)
    assert client.areas() == CHANGED
    assert fault.fired == 0


def test_extra_areas_are_named_though_nothing_changed_there(client: Client) -> None:
    fault = client.site.faults.set("cbt-extra", times=1, offset=4 * GRAIN, length=2 * GRAIN)
    assert client.areas() == [(2 * GRAIN, 4 * GRAIN), CHANGED[1]]
    assert fault.firings[-1].detail == {"areas": [(5 * GRAIN, GRAIN)]}
    assert client.areas() == CHANGED


def test_wrong_allocation_hides_areas_from_the_star_and_from_nfc(client: Client) -> None:
    """The agent's full backups ask NFC; change id * lies as well."""
    whole = client.areas(since="*")
    assert client.allocated()[:16] == [True] * 16
    fault = client.site.faults.set("allocation-wrong", vm="db 1", offset=GRAIN, length=GRAIN)
    assert client.areas(since="*") != whole
    assert client.areas() == CHANGED  # changed areas are another matter
    assert client.allocated()[:4] == [True, False, True, True]
    assert fault.fired == 2
    client.site.faults.clear(fault)
    assert client.areas(since="*") == whole


def test_trimmed_areas_count_as_changed_and_read_as_zeros(client: Client) -> None:
    """Row 12: what was trimmed is no old data."""
    client.vm.disks[0].trim(2 * GRAIN, 2 * GRAIN)
    client.snapshot = take_snapshot(client.seen, "third")
    assert client.areas() == CHANGED
    (file,) = {one.backing.fileName for one in frozen_disks(client.snapshot) if one.key == 2000}
    connection, handle = client.opened(file)
    assert connection.read(handle, 2 * GRAIN, 2 * GRAIN) == bytes(2 * GRAIN)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("file-fault", {}),
        ("cbt-slice-bytes", {"bytes": GRAIN}),
        ("cbt-zero-slice", {}),
        ("cbt-gap", {}),
        ("cbt-unsorted", {}),
        ("cbt-overlap", {}),
        ("cbt-beyond-capacity", {}),
        ("cbt-omit", {}),
        ("cbt-extra", {}),
    ],
)
def test_fault_of_another_disk_or_vm_leaves_answers_alone(
    client: Client, name: str, options: dict[str, Any]
) -> None:
    other = client.site.add_vm("other", [DiskSpec(1 << 20)])
    faults: list[Callable[[], Any]] = [
        lambda: client.site.faults.set(name, vm=other.name, **options),
        lambda: client.site.faults.set(name, vm="db 1", disk=1, **options),
    ]
    for order in faults:
        fault = order()
        answer = client.query()
        assert (answer.startOffset, answer.length) == (0, CAPACITY)
        assert [(one.start, one.length) for one in answer.changedArea] == CHANGED
        assert fault.fired == 0
