"""The disks of one VM: which slot each has, which files, and what snapshots still hold of old ones."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from simulator.disks.disk import DiskSpec, SimulatedDisk
from simulator.disks.link import Link
from simulator.snapshots import FrozenDisk, Snapshot, consolidate

_FIRST_DISK_KEY: Final = 2000
_UNITS_PER_CONTROLLER: Final = 16
_CONTROLLERS_OWN_UNIT: Final = 7
_CONTROLLERS: Final = 4


@dataclass
class _Files:
    """The files of one disk, base first; `number` is in their names."""

    number: int
    links: list[Link]


class Devices:
    """Disks in use, and those detached whose links a snapshot holds. The VM's lock guards it."""

    def __init__(self, folder: Path, datastore_folder: str, vm: str) -> None:
        """Files are made in `folder`; clients know it as `datastore_folder`, "[datastore] name"."""
        self.disks: list[SimulatedDisk] = []  # in the order of their keys
        self._folder = folder
        self._datastore_folder = datastore_folder
        self._stem = datastore_folder.rpartition("] ")[2]
        self._vm = vm
        self._files: dict[SimulatedDisk, _Files] = {}

    @property
    def all(self) -> list[SimulatedDisk]:
        """Disks in use and detached ones that are held."""
        return list(self._files)

    @property
    def controllers(self) -> list[int]:
        """Numbers of the SCSI controllers; there is always one."""
        return sorted({0, *(disk.controller for disk in self.disks)})

    def links(self, disk: SimulatedDisk) -> list[Link]:
        """All links of a disk, base first."""
        return list(self._files[disk].links)

    def find(self, number: int) -> SimulatedDisk:
        """By position in the order of device keys, or by device key. Raises ValueError."""
        if 0 <= number < len(self.disks):
            return self.disks[number]
        for disk in self.disks:
            if disk.key == number:
                return disk
        keys = ", ".join(f"{place} (key {disk.key})" for place, disk in enumerate(self.disks))
        raise ValueError(f"{self._vm} has no disk {number}; it has: {keys or 'none'}")

    # Slots.

    def attach(self, spec: DiskSpec, touched: Callable[[], None]) -> SimulatedDisk:
        """A new disk. Raises ValueError when its key or unit is taken or makes no sense."""
        unit = self._free_unit(spec.controller) if spec.unit is None else spec.unit
        key = _key(spec.controller, unit) if spec.key is None else spec.key
        self._check_slot(None, spec.controller, unit, key)
        files = _Files(_lowest_free(0, (one.number for one in self._files.values())), [])
        taken = (int(disk.label.rpartition(" ")[2]) for disk in self.disks)

        def new_link(count: int, capacity_bytes: int, parent: Link | None) -> Link:
            file = self._stem + (f"_{files.number}" if files.number else "")
            file += f"-{count:06}" if count else ""
            link = Link(
                self._folder / f"{quote(file, safe=' ')}.raw",
                f"{self._datastore_folder}/{file}.vmdk",
                capacity_bytes,
                parent,
            )
            files.links.append(link)
            return link

        try:
            disk = SimulatedDisk(
                spec,
                key=key,
                unit=unit,
                label=f"Hard disk {_lowest_free(1, taken)}",
                new_link=new_link,
                touched=touched,
            )
        except BaseException:
            for link in files.links:
                link.delete()
            raise
        self._files[disk] = files
        self.disks.append(disk)
        self._sort()
        return disk

    def detach(self, disk: SimulatedDisk) -> None:
        """Take a disk out; its files go when no snapshot needs them (`consolidate`)."""
        self.disks.remove(disk)

    def move(self, disk: SimulatedDisk, controller: int, unit: int | None) -> None:
        """Put a disk behind another controller or unit: its key changes, its uuid stays.

        Raises ValueError when the place is taken or makes no sense.
        """
        if unit is None:
            unit = self._free_unit(controller)
        key = _key(controller, unit)
        self._check_slot(disk, controller, unit, key)
        disk.controller, disk.unit, disk.key = controller, unit, key
        self._sort()

    def reorder(self, order: Sequence[SimulatedDisk]) -> None:
        """Let the disks change places: `order` lists all of them as they are to be.

        Keys, units and labels belong to the places. Raises ValueError for another set of disks.
        """
        if len(order) != len(self.disks) or set(order) != set(self.disks):
            raise ValueError(f"{self._vm}: the new order must name each disk once")
        places = [(one.controller, one.unit, one.key, one.label) for one in self.disks]
        for disk, (controller, unit, key, label) in zip(order, places, strict=True):
            disk.controller, disk.unit, disk.key, disk.label = controller, unit, key, label
        self._sort()

    def restore(self, frozen: Iterable[FrozenDisk]) -> None:
        """The disks that a snapshot lists, in the places that they had; others are detached."""
        self.disks = []
        for one in frozen:
            disk = one.disk
            if disk not in self._files:
                continue  # an independent disk that was removed since: its bytes are gone
            disk.controller, disk.unit, disk.key = one.controller, one.unit, one.key
            disk.label = one.label
            self.disks.append(disk)
        self._sort()

    def _sort(self) -> None:
        self.disks.sort(key=lambda one: one.key)

    def _free_unit(self, controller: int) -> int:
        taken = {disk.unit for disk in self.disks if disk.controller == controller}
        return _lowest_free(0, {*taken, _CONTROLLERS_OWN_UNIT})

    def _check_slot(self, disk: SimulatedDisk | None, controller: int, unit: int, key: int) -> None:
        if not 0 <= controller < _CONTROLLERS:
            raise ValueError(f"{self._vm}: SCSI controller {controller} is not 0 to 3")
        if not 0 <= unit < _UNITS_PER_CONTROLLER or unit == _CONTROLLERS_OWN_UNIT:
            raise ValueError(f"{self._vm}: unit {unit} is not one a disk can have")
        for other in self.disks:
            same = other.key == key or (other.controller, other.unit) == (controller, unit)
            if other is not disk and same:
                raise ValueError(f"{self._vm}: {other.label} already has this key or unit")

    # Files.

    def consolidate(
        self, disk: SimulatedDisk, snapshots: list[Snapshot], patience_s: float
    ) -> None:
        """Merge and remove links of a disk that nothing needs. Raises DiskBusy."""
        links = self._files[disk].links
        with disk.consolidating(patience_s):
            consolidate(disk, links, snapshots, in_use=disk in self.disks)
        if not links:
            del self._files[disk]

    def close(self) -> None:
        """Close all files."""
        for files in self._files.values():
            for link in files.links:
                link.close()


def _key(controller: int, unit: int) -> int:
    """As ESXi counts."""
    return _FIRST_DISK_KEY + _UNITS_PER_CONTROLLER * controller + unit


def _lowest_free(first: int, taken: Iterable[int]) -> int:
    used = set(taken)
    return next(number for number in range(first, first + len(used) + 1) if number not in used)
