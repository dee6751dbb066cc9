"""A virtual machine: disks, power, snapshots that really freeze links, and stuns."""

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from simulator.disks.disk import DiskBusy, DiskSpec, SimulatedDisk
from simulator.disks.link import GRAIN, ChainView, Link
from simulator.disks.tracking import ChangeId, ChangeTracking
from simulator.recording import record_link

PowerState = Literal["poweredOn", "poweredOff", "suspended"]
POWER_STATES: tuple[PowerState, ...] = ("poweredOn", "poweredOff", "suspended")

_DATASTORE = "datastore1"
_FIRST_DISK_KEY = 2000
_UNITS_PER_CONTROLLER = 16
_CONTROLLERS_OWN_UNIT = 7


class OperationRefused(Exception):
    """The host refuses an operation. `kind` is the name of the vSphere fault."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem


@dataclass(frozen=True)
class FrozenDisk:
    """A disk as a snapshot froze it. The link is looked up by the snapshot: it may be merged."""

    disk: SimulatedDisk
    capacity_bytes: int
    tracking: ChangeTracking | None
    change_id: ChangeId | None


@dataclass
class Snapshot:
    """A node of a VM's snapshot tree."""

    moid: str
    number: int
    name: str
    description: str
    created: datetime
    quiesced: bool
    power_state: PowerState
    change_tracking_enabled: bool
    parent: "Snapshot | None"
    disks: list[FrozenDisk]
    links: dict[int, Link]  # by device key
    others: list[SimulatedDisk]  # independent disks: listed, not frozen
    children: list["Snapshot"] = field(default_factory=list)

    def with_descendants(self) -> Iterator["Snapshot"]:
        """This snapshot and everything below it."""
        yield self
        for child in self.children:
            yield from child.with_descendants()


@dataclass(frozen=True, slots=True)
class ChangedArea:
    """`length` changed bytes from byte offset `start`."""

    start: int
    length: int


class SimulatedVm:
    """One VM. Every method may be called by any thread; `lock` guards the snapshot tree."""

    def __init__(
        self,
        moid: str,
        name: str,
        *,
        folder: Path,
        touched: Callable[[], None],
        record_to: Path | None,
        power_state: PowerState = "poweredOn",
        guest_id: str = "debian12_64Guest",
        guest_full_name: str = "Debian GNU/Linux 12 (64-bit)",
        tools_running: bool = True,
        change_tracking_enabled: bool = False,
    ) -> None:
        self.moid = moid
        self.name = name
        self.uuid = str(uuid.uuid4())
        self.instance_uuid = str(uuid.uuid4())
        self.guest_id = guest_id
        self.guest_full_name = guest_full_name
        self.tools_running = tools_running
        self.power_state: PowerState = power_state
        self.change_tracking_enabled = change_tracking_enabled
        self.consolidation_needed = False
        self.disks: list[SimulatedDisk] = []
        self.root_snapshots: list[Snapshot] = []
        self.current_snapshot: Snapshot | None = None
        self.reader_patience_s = 5.0
        self.changed_at = datetime.now(UTC)
        self.created_at = self.changed_at
        self.lock = threading.RLock()
        self._folder_name = quote(name, safe=" ") if "/" in name else name
        self._folder = folder / quote(f"{name}-{moid}", safe=" ")
        self._touched_site = touched
        self._record_to = record_to
        self._links: dict[int, list[Link]] = {}
        self._last_snapshot = 0
        self._last_link = 0

    # Inventory.

    @property
    def vmx_path(self) -> str:
        return f"[{_DATASTORE}] {self._folder_name}/{self._folder_name}.vmx"

    @property
    def controllers(self) -> list[int]:
        """Numbers of the SCSI controllers; there is always one."""
        return sorted({0, *(disk.controller for disk in self.disks)})

    @property
    def snapshots(self) -> list[Snapshot]:
        """All snapshots, parents before their children."""
        with self.lock:
            return [node for root in self.root_snapshots for node in root.with_descendants()]

    def links(self, disk: SimulatedDisk) -> list[Link]:
        """All links of a disk, base first."""
        with self.lock:
            return list(self._links[disk.key])

    def add_disk(self, spec: DiskSpec) -> SimulatedDisk:
        """Attach a disk. Raises ValueError when its key or unit is taken or makes no sense."""
        with self.lock:
            unit = self._free_unit(spec.controller) if spec.unit is None else spec.unit
            key = spec.key
            if key is None:
                key = _FIRST_DISK_KEY + _UNITS_PER_CONTROLLER * spec.controller + unit
            if not 0 <= unit < _UNITS_PER_CONTROLLER or unit == _CONTROLLERS_OWN_UNIT:
                raise ValueError(f"{self.name}: unit {unit} is not one a disk can have")
            if not 0 <= spec.controller < 4:
                raise ValueError(f"{self.name}: SCSI controller {spec.controller} is not 0 to 3")
            for other in self.disks:
                if other.key == key or (other.controller, other.unit) == (spec.controller, unit):
                    raise ValueError(f"{self.name}: {other.label} already has this key or unit")
            number = len(self._links)
            stem = self._folder_name + (f"_{number}" if number else "")
            links = self._links[key] = []

            def new_link(count: int, capacity_bytes: int, parent: Link | None) -> Link:
                file = f"{stem}-{count:06}" if count else stem
                link = Link(
                    self._folder / f"{quote(file, safe=' ')}.raw",
                    f"[{_DATASTORE}] {self._folder_name}/{file}.vmdk",
                    capacity_bytes,
                    parent,
                )
                links.append(link)
                return link

            disk = SimulatedDisk(
                spec,
                key=key,
                unit=unit,
                label=f"Hard disk {number + 1}",
                new_link=new_link,
                touched=self.touched,
            )
            self.disks.append(disk)
            self.disks.sort(key=lambda one: one.key)
        self.touched()
        return disk

    def remove_disk(self, disk: SimulatedDisk) -> None:
        """Detach a disk and forget its bytes. Raises ValueError while snapshots hold it."""
        with self.lock:
            if any(disk.key in snapshot.links for snapshot in self.snapshots):
                raise ValueError(f"{disk.label} is held by a snapshot")
            self.disks.remove(disk)
            for link in self._links[disk.key]:
                link.delete()
            del self._links[disk.key]
        self.touched()

    def disk(self, key: int) -> SimulatedDisk:
        """The disk with a device key. Raises KeyError."""
        for disk in self.disks:
            if disk.key == key:
                return disk
        raise KeyError(key)

    def _free_unit(self, controller: int) -> int:
        taken = {disk.unit for disk in self.disks if disk.controller == controller}
        taken.add(_CONTROLLERS_OWN_UNIT)
        return next(unit for unit in range(64) if unit not in taken)

    def touched(self) -> None:
        """Something that clients can see changed."""
        self.changed_at = datetime.now(UTC)
        self._touched_site()

    # Power and stuns.

    def power(self, state: PowerState) -> None:
        """Change the power state; power-on and resume are stuns. Raises ValueError."""
        if state not in POWER_STATES:
            raise ValueError(f"power state {state!r} is none of {', '.join(POWER_STATES)}")
        with self.lock:
            if state == "poweredOn" and self.power_state != "poweredOn":
                self._stun()
            self.power_state = state
        self.touched()

    def power_loss(self) -> None:
        """The host lost power and came back: every disk's tracking is reset."""
        with self.lock:
            for disk in self.disks:
                disk.reset_tracking()
        self.touched()

    def reset_tracking(self) -> None:
        """Tracking starts over with a new uuid, as after a Storage vMotion of old."""
        self.power_loss()

    def reconfigure(
        self, *, change_tracking_enabled: bool | None = None, name: str | None = None
    ) -> None:
        """What ReconfigVM_Task changes. Tracking follows at the next stun."""
        with self.lock:
            if change_tracking_enabled is not None:
                self.change_tracking_enabled = change_tracking_enabled
            if name:
                self.name = name
        self.touched()

    def _stun(self) -> None:
        for disk in self.disks:
            disk.set_tracking(self.change_tracking_enabled)

    # Snapshots.

    def create_snapshot(
        self, name: str, description: str = "", *, quiesce: bool = False
    ) -> Snapshot:
        """Freeze all dependent disks together. Raises OperationRefused."""
        with self.lock:
            if any(disk.multi_writer for disk in self.disks):
                raise OperationRefused(
                    "SnapshotFault", "Cannot snapshot a VM with a multi-writer disk."
                )
            if self.consolidation_needed and self._last_link > 1000:
                raise OperationRefused("SnapshotFault", "Disk consolidation is needed.")
            if quiesce and self.power_state == "poweredOn" and not self.tools_running:
                raise OperationRefused(
                    "FilesystemQuiesceFault",
                    "The guest's file systems cannot be quiesced: VMware Tools is not running.",
                )
            self._stun()
            self._last_snapshot += 1
            self._last_link += 1
            disks: list[FrozenDisk] = []
            links: dict[int, Link] = {}
            for disk in self.disks:
                if not disk.in_snapshots:
                    continue
                link, change_id = disk.freeze(self._last_link)
                links[disk.key] = link
                disks.append(FrozenDisk(disk, link.capacity_bytes, disk.tracking, change_id))
            snapshot = Snapshot(
                moid=f"{self.moid}-snapshot-{self._last_snapshot}",
                number=self._last_snapshot,
                name=name,
                description=description,
                created=datetime.now(UTC),
                quiesced=quiesce and self.power_state == "poweredOn",
                power_state=self.power_state,
                change_tracking_enabled=self.change_tracking_enabled,
                parent=self.current_snapshot,
                disks=disks,
                links=links,
                others=[disk for disk in self.disks if not disk.in_snapshots],
            )
            if self._record_to:
                for key, link in links.items():
                    record_link(link, self._record_to / quote(name, safe=" ") / f"disk-{key}.raw")
            siblings = snapshot.parent.children if snapshot.parent else self.root_snapshots
            siblings.append(snapshot)
            self.current_snapshot = snapshot
        self.touched()
        return snapshot

    def remove_snapshot(
        self, snapshot: Snapshot, *, children: bool = False, consolidate: bool = True
    ) -> None:
        """Take a snapshot out of the tree and merge the links that nothing needs any more.

        Raises OperationRefused (FileLocked) when readers hold a disk: the snapshot is
        gone then, and `consolidation_needed` says that links are left over.
        """
        with self.lock:
            self._stun()
            gone = list(snapshot.with_descendants()) if children else [snapshot]
            stay = [] if children else snapshot.children
            siblings = snapshot.parent.children if snapshot.parent else self.root_snapshots
            place = siblings.index(snapshot)
            siblings[place : place + 1] = stay
            for child in stay:
                child.parent = snapshot.parent
            if self.current_snapshot in gone:
                self.current_snapshot = snapshot.parent
            self.consolidation_needed = True
        try:
            if consolidate:
                self.consolidate()
        finally:
            self.touched()

    def remove_all_snapshots(self) -> None:
        """Remove every snapshot. Raises OperationRefused as `remove_snapshot` does."""
        with self.lock:
            self._stun()
            self.root_snapshots = []
            self.current_snapshot = None
            self.consolidation_needed = True
        try:
            self.consolidate()
        finally:
            self.touched()

    def revert(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot. Tracking is reset: changes across a revert are not known."""
        with self.lock:
            self._stun()
            self._last_link += 1
            for disk in self.disks:
                if disk.key in snapshot.links:
                    disk.revert(self._last_link, snapshot.links[disk.key])
                    disk.reset_tracking()
            self.current_snapshot = snapshot
            self.power_state = "poweredOff"  # snapshots are taken without memory
            self.consolidation_needed = True
        try:
            self.consolidate()
        finally:
            self.touched()

    def consolidate(self) -> None:
        """Merge links that neither the guest nor a snapshot needs. Raises OperationRefused."""
        with self.lock:
            try:
                for disk in self.disks:
                    with disk.consolidating(self.reader_patience_s):
                        self._consolidate(disk)
            except DiskBusy as error:
                self.touched()
                raise OperationRefused(
                    "FileLocked", f"Unable to access file since it is locked: {error}"
                ) from error
            self.consolidation_needed = False
        self.touched()

    def _consolidate(self, disk: SimulatedDisk) -> None:
        snapshots = [one for one in self.snapshots if disk.key in one.links]
        links = self._links[disk.key]
        for link in reversed(list(links)):
            if link is disk.current or any(one.links[disk.key] is link for one in snapshots):
                continue
            children = [one for one in links if one.parent is link]
            if len(children) > 1:
                continue  # a shared base of two branches
            if children:
                child = children[0]
                link.take_in(child)
                for grandchild in links:
                    if grandchild.parent is child:
                        grandchild.parent = link
                for one in snapshots:
                    if one.links[disk.key] is child:
                        one.links[disk.key] = link
                if disk.current is child:
                    disk.current = link
                links.remove(child)
                child.delete()
            else:
                links.remove(link)
                link.delete()

    # Changed block tracking.

    def changed_areas(
        self, snapshot: Snapshot | None, key: int, start: int, change_id: str, *, star: str
    ) -> tuple[int, list[ChangedArea]]:
        """(capacity, all changed areas from `start` on). Raises OperationRefused (FileFault).

        `star` is what change id `*` answers: "allocated", "whole" or "fault".
        """
        with self.lock:
            disk, capacity, tracking, until, link = self._tracked(snapshot, key)
            if not 0 <= start < capacity:
                raise OperationRefused("FileFault", f"startOffset {start} is past the disk's end")
            if change_id == "*":
                if star == "fault" or link is None:
                    raise OperationRefused("FileFault", "allocated areas are not known")
                grains = np.flatnonzero(disk.allocated(link) | (star == "whole"))
            else:
                base = ChangeId.parse(change_id)
                found = None
                if base:
                    found = (
                        tracking.changed_between(base, until)
                        if until
                        else tracking.changed_since(base)
                    )
                if found is None:
                    raise OperationRefused("FileFault", f"change id {change_id!r} is not known")
                grains = found
            return capacity, _areas(grains, start, capacity)

    def _tracked(
        self, snapshot: Snapshot | None, key: int
    ) -> tuple[SimulatedDisk, int, ChangeTracking, ChangeId | None, Link | None]:
        if snapshot is None:
            try:
                disk = self.disk(key)
            except KeyError:
                raise OperationRefused("InvalidArgument", "deviceKey") from None
            if self.power_state == "poweredOn" or disk.tracking is None:
                raise OperationRefused("FileFault", "no snapshot, and the VM runs or is untracked")
            return disk, disk.capacity_bytes, disk.tracking, None, disk.current
        for frozen in snapshot.disks:
            if frozen.disk.key == key:
                if frozen.tracking is None or frozen.change_id is None:
                    raise OperationRefused("FileFault", "change tracking is not active")
                return (
                    frozen.disk,
                    frozen.capacity_bytes,
                    frozen.tracking,
                    frozen.change_id,
                    snapshot.links[key],
                )
        if any(disk.key == key for disk in snapshot.others):
            raise OperationRefused("FileFault", "the disk is not part of the snapshot")
        raise OperationRefused("InvalidArgument", "deviceKey")

    def close(self) -> None:
        """Close all files."""
        with self.lock:
            for links in self._links.values():
                for link in links:
                    link.close()

    def frozen_content(self, snapshot: Snapshot, key: int) -> bytes:
        """All bytes of a disk as a snapshot froze it; for small disks. Raises KeyError."""
        with self.lock:
            view = ChainView(snapshot.links[key])
            return view.read(0, view.capacity_bytes)


def _areas(grains: npt.NDArray[np.int64], start: int, capacity: int) -> list[ChangedArea]:
    indices = grains[(grains + 1) * GRAIN > start]
    if not len(indices):
        return []
    breaks = np.flatnonzero(np.diff(indices) != 1)
    firsts = indices[np.concatenate(([0], breaks + 1))] * GRAIN
    ends = np.minimum((indices[np.concatenate((breaks, [len(indices) - 1]))] + 1) * GRAIN, capacity)
    firsts = np.maximum(firsts, start)
    return [
        ChangedArea(int(first), int(end - first)) for first, end in zip(firsts, ends, strict=True)
    ]
