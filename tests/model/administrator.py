"""What administrators do to a VM at random; what is not possible at the moment is left."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.model.disks import CLUSTER
from tests.model.guest import MOST_DISKS, GuestVm

# Off the cluster grid, on it, and over the border of a region (512 MiB).
CAPACITIES: Final = (
    5 * CLUSTER + 512,
    48 * CLUSTER,
    200 * CLUSTER + 4096,
    (512 << 20) + 3 * CLUSTER + 512,
)
GROWTHS: Final = (512, 60 * 1024, CLUSTER, 40 * CLUSTER + 512, 512 << 20)


def _add_disk(guest: GuestVm, number: int) -> None:
    if len(guest.disks) < MOST_DISKS:
        guest.add_disk(CAPACITIES[number % len(CAPACITIES)])


def _remove_disk(guest: GuestVm, number: int) -> None:
    if len(guest.disks) > 1:
        guest.remove_disk(number)


def _grow_disk(guest: GuestVm, number: int) -> None:
    if not guest.vm.snapshots and not guest.vm.consolidation_needed:
        disk = guest.simulated(number)
        guest.grow(disk, disk.capacity_bytes + GROWTHS[number % len(GROWTHS)])


DEEDS: Final[Mapping[str, Callable[[GuestVm, int], None]]] = {
    "add a disk": _add_disk,
    "remove a disk": _remove_disk,
    "grow a disk": _grow_disk,
    "move a disk to another controller": lambda guest, number: guest.move_disk(number, number % 3),
    "re-order the disks": lambda guest, number: guest.reorder_disks(number),
    "reset tracking": lambda guest, _: guest.reset_tracking(),
    "switch tracking off": lambda guest, _: guest.switch_tracking_off(),
    "cycle the power": lambda guest, _: guest.cycle_power(),
}
