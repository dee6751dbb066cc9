"""Slices of changed areas: what is believed, and what is not."""

from typing import Any

import pytest

from agent.areas import Area
from agent.vsphere.api import vim
from agent.vsphere.change_tracking import _add_slice, _check_ids
from agent.vsphere.errors import ChangeTrackingUnusable
from agent.vsphere.models import FrozenDisk

K = 65536
EPOCH = "52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d"


def disk(change_id: str = f"{EPOCH}/9") -> FrozenDisk:
    return FrozenDisk(0, 2000, "6000C29e", "Hard disk 1", 10 * K + 512, change_id, "[ds] a/a.vmdk")


def answer(start: int, length: int, *areas: tuple[int, int]) -> Any:
    extent = vim.VirtualMachine.DiskChangeInfo.DiskChangeExtent
    return vim.VirtualMachine.DiskChangeInfo(
        startOffset=start,
        length=length,
        changedArea=[extent(start=first, length=size) for first, size in areas],
    )


def test_slices_are_joined_and_adjacent_areas_merged() -> None:
    areas: list[Area] = []
    assert _add_slice(areas, answer(0, 4 * K, (0, K), (3 * K, K)), 0, disk()) == 4 * K
    assert _add_slice(areas, answer(4 * K, K), 4 * K, disk()) == 5 * K
    end = _add_slice(areas, answer(5 * K, 6 * K, (5 * K, K), (6 * K, K)), 5 * K, disk())
    assert end == disk().capacity_bytes
    assert areas == [Area(0, K), Area(3 * K, K), Area(5 * K, 2 * K)]


@pytest.mark.parametrize(
    "wrong",
    [
        answer(0, 4 * K),
        answer(5 * K, 4 * K),
        answer(4 * K, 0),
        answer(4 * K, 2 * K, (3 * K, K)),
        answer(4 * K, 2 * K, (5 * K, 2 * K)),
        answer(4 * K, 2 * K, (4 * K, 0)),
        answer(4 * K, 2 * K, (4 * K, -K)),
        answer(4 * K, 4 * K, (6 * K, K), (4 * K, K)),
        answer(4 * K, 4 * K, (4 * K, 2 * K), (5 * K, K)),
        answer(4 * K, 20 * K, (10 * K, K)),
    ],
    ids=[
        "starts before",
        "starts after",
        "empty slice",
        "area before the slice",
        "area beyond the slice",
        "empty area",
        "negative area",
        "unsorted",
        "overlapping",
        "beyond the capacity",
    ],
)
def test_slice_that_cannot_be_right_is_not_believed(wrong: Any) -> None:
    with pytest.raises(ChangeTrackingUnusable, match="cannot be right"):
        _add_slice([], wrong, 4 * K, disk())


@pytest.mark.parametrize(
    ("change_id", "base", "reason"),
    [
        ("", f"{EPOCH}/3", "not tracked"),
        (f"{EPOCH}/9", "52 00/3", "reset"),
        (f"{EPOCH}/9", f"{EPOCH}/10", "earlier state"),
        (f"{EPOCH}/9", "*", "no change id"),
        (f"{EPOCH}/9", f"{EPOCH}/x", "no change id"),
    ],
)
def test_ids_that_do_not_belong_together_are_not_asked_with(
    change_id: str, base: str, reason: str
) -> None:
    with pytest.raises(ChangeTrackingUnusable, match=reason):
        _check_ids(disk(change_id), base)


def test_ids_of_one_epoch_are_asked_with() -> None:
    _check_ids(disk(), f"{EPOCH}/9")
    _check_ids(disk(), f"{EPOCH}/1")
