"""A virtual machine: disks, power, snapshots that really freeze links, and stuns."""

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from simulator.changed_areas import ChangedArea, TrackedDisk, changed_areas, tracked_disk
from simulator.disks.disk import DiskBusy, DiskSpec, SimulatedDisk
from simulator.disks.link import ChainView, Link
from simulator.faults.api_kinds import ConsolidationNeeded
from simulator.faults.board import FaultBoard
from simulator.faults.kind import Place
from simulator.recording import record_link
from simulator.snapshots import (
    POWER_STATES,
    FrozenDisk,
    OperationRefused,
    PowerState,
    Snapshot,
    consolidate,
)

__all__ = ["OperationRefused", "SimulatedVm", "Snapshot"]

_DATASTORE = "datastore1"
_FIRST_DISK_KEY = 2000
_UNITS_PER_CONTROLLER = 16
_CONTROLLERS_OWN_UNIT = 7


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
        faults: FaultBoard | None = None,
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
        self._faults = faults or FaultBoard()
        self._links_left = False
        self._record_to = record_to
        self._links: dict[int, list[Link]] = {}
        self._last_snapshot = 0
        self._last_link = 0
        self._disks_ever = 0  # of a removed one neither files nor label come back

    # Inventory.

    @property
    def vmx_path(self) -> str:
        return f"[{_DATASTORE}] {self._folder_name}/{self._folder_name}.vmx"

    @property
    def consolidation_needed(self) -> bool:
        """Whether links are left that nothing needs, or a fault says so."""
        return self._links_left or any(self._faults.look(ConsolidationNeeded, Place(self.moid)))

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
            number = self._disks_ever
            self._disks_ever += 1
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

    def find_disk(self, number: int) -> SimulatedDisk:
        """By position in the order of device keys, or by device key. Raises ValueError."""
        if 0 <= number < len(self.disks):
            return self.disks[number]
        for disk in self.disks:
            if disk.key == number:
                return disk
        keys = ", ".join(f"{place} (key {disk.key})" for place, disk in enumerate(self.disks))
        raise ValueError(f"{self.name} has no disk {number}; it has: {keys or 'none'}")

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
        self,
        name: str,
        description: str = "",
        *,
        quiesce: bool = False,
        without_change_ids: frozenset[int] = frozenset(),
    ) -> Snapshot:
        """Freeze all dependent disks together. Raises OperationRefused.

        Disks with a key in `without_change_ids` show none, as if they were not tracked.
        """
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
                if disk.key in without_change_ids:
                    change_id = None
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
            self._links_left = True
        try:
            if consolidate:
                self._merge_unless_faulty()
        finally:
            self.touched()

    def remove_all_snapshots(self) -> None:
        """Remove every snapshot. Raises OperationRefused as `remove_snapshot` does."""
        with self.lock:
            self._stun()
            self.root_snapshots = []
            self.current_snapshot = None
            self._links_left = True
        try:
            self._merge_unless_faulty()
        finally:
            self.touched()

    def revert(self, snapshot: Snapshot, *, keeps_tracking: bool = False) -> None:
        """Go back to a snapshot. Tracking is reset: changes across a revert are not known.

        `keeps_tracking`: it goes back with the disks instead, where the snapshot had it.
        """
        with self.lock:
            self._stun()
            self._last_link += 1
            for frozen in snapshot.disks:
                disk = frozen.disk
                if disk not in self.disks:
                    continue
                disk.revert(self._last_link, snapshot.links[disk.key])
                if keeps_tracking and frozen.tracking and frozen.change_id:
                    disk.tracking_goes_back(frozen.tracking, frozen.change_id)
                else:
                    disk.reset_tracking()
            self.current_snapshot = snapshot
            self.power_state = "poweredOff"  # snapshots are taken without memory
            self._links_left = True
        try:
            self._merge_unless_faulty()
        finally:
            self.touched()

    def consolidate(self) -> None:
        """Merge links that neither the guest nor a snapshot needs. Raises OperationRefused."""
        at = Place(self.moid)
        self._faults.fire(ConsolidationNeeded, at)
        if any(self._faults.look(ConsolidationNeeded, at)):
            return  # the task ends well, and nothing is merged: as hosts do
        self._merge()

    def _merge(self) -> None:
        with self.lock:
            try:
                for disk in self.disks:
                    with disk.consolidating(self.reader_patience_s):
                        consolidate(disk, self._links[disk.key], self.snapshots)
            except DiskBusy as error:
                self.touched()
                raise OperationRefused(
                    "FileLocked", f"Unable to access file since it is locked: {error}"
                ) from error
            self._links_left = False
        self.touched()

    def _merge_unless_faulty(self) -> None:
        if not any(self._faults.look(ConsolidationNeeded, Place(self.moid))):
            self._merge()

    def changed_areas(
        self, snapshot: Snapshot | None, key: int, start: int, change_id: str, *, star: str
    ) -> tuple[int, list[ChangedArea]]:
        """(capacity, all changed areas from `start` on). Raises OperationRefused (FileFault).

        `star` is what change id `*` answers: "allocated", "whole" or "fault".
        """
        with self.lock:
            asked = tracked_disk(snapshot, key) if snapshot else self._tracked_live(key)
            return asked.capacity_bytes, changed_areas(asked, start, change_id, star)

    def _tracked_live(self, key: int) -> TrackedDisk:
        try:
            disk = self.disk(key)
        except KeyError:
            raise OperationRefused("InvalidArgument", "deviceKey") from None
        if self.power_state == "poweredOn" or disk.tracking is None:
            raise OperationRefused("FileFault", "no snapshot, and the VM runs or is untracked")
        return TrackedDisk(disk, disk.capacity_bytes, disk.tracking, None, disk.current)

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
