"""A virtual machine: disks, power, snapshots that really freeze links, and stuns."""

import contextlib
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from simulator.changed_areas import ChangedArea, TrackedDisk, changed_areas, tracked_disk
from simulator.devices import Devices
from simulator.disks.disk import DiskBusy, DiskSpec, SimulatedDisk
from simulator.disks.link import ChainView, Link
from simulator.disks.tracking import REVERTED_TRACKING, RevertedTracking
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
    freeze_disks,
)

__all__ = ["OperationRefused", "SimulatedVm", "Snapshot"]

_DATASTORE = "datastore1"


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
        self.root_snapshots: list[Snapshot] = []
        self.current_snapshot: Snapshot | None = None
        self.reader_patience_s = 5.0
        self.changed_at = datetime.now(UTC)
        self.created_at = self.changed_at
        self.lock = threading.RLock()
        self._folder_name = quote(name, safe=" ") if "/" in name else name
        self._devices = Devices(
            folder / quote(f"{name}-{moid}", safe=" "),
            f"[{_DATASTORE}] {self._folder_name}",
            name,
        )
        self._touched_site = touched
        self._faults = faults or FaultBoard()
        self._links_left = False
        self._record_to = record_to
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
    def disks(self) -> list[SimulatedDisk]:
        """The disks in use, in the order of their keys."""
        return self._devices.disks

    @property
    def all_disks(self) -> list[SimulatedDisk]:
        """Those, and detached ones that a snapshot holds."""
        with self.lock:
            return self._devices.all

    @property
    def controllers(self) -> list[int]:
        """Numbers of the SCSI controllers; there is always one."""
        return self._devices.controllers

    @property
    def snapshots(self) -> list[Snapshot]:
        """All snapshots, parents before their children."""
        with self.lock:
            return [node for root in self.root_snapshots for node in root.with_descendants()]

    def links(self, disk: SimulatedDisk) -> list[Link]:
        """All links of a disk, base first."""
        with self.lock:
            return self._devices.links(disk)

    def find_disk(self, number: int) -> SimulatedDisk:
        """By position in the order of device keys, or by device key. Raises ValueError."""
        return self._devices.find(number)

    # What an administrator does to the disks. Change ids stay: tracking goes with the disk.

    def add_disk(self, spec: DiskSpec) -> SimulatedDisk:
        """Attach a disk. Raises ValueError when its key or unit is taken or makes no sense."""
        with self.lock:
            disk = self._devices.attach(spec, self.touched)
        self.touched()
        return disk

    def remove_disk(self, disk: SimulatedDisk) -> None:
        """Detach a disk and forget its bytes, but those that snapshots hold."""
        with self.lock:
            self._devices.detach(disk)
            with contextlib.suppress(DiskBusy):  # then its links go with the next consolidation
                self._devices.consolidate(disk, self.snapshots, self.reader_patience_s)
        self.touched()

    def move_disk(self, disk: SimulatedDisk, controller: int, unit: int | None = None) -> None:
        """Put a disk behind another controller: another key, the same uuid. Raises ValueError."""
        with self.lock:
            self._devices.move(disk, controller, unit)
        self.touched()

    def reorder_disks(self, order: Sequence[SimulatedDisk]) -> None:
        """Let the disks change places, keys and labels. Raises ValueError for other disks."""
        with self.lock:
            self._devices.reorder(order)
        self.touched()

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
        memory: bool = False,
        without_change_ids: frozenset[int] = frozenset(),
        age: timedelta = timedelta(0),
    ) -> Snapshot:
        """Freeze all dependent disks together. Raises OperationRefused.

        One of memory too is never quiesced. Disks with a key in `without_change_ids` show none, as if they were not tracked.
        The snapshot says that it was taken `age` ago.
        """
        with self.lock:
            if any(disk.multi_writer for disk in self.disks):
                raise OperationRefused(
                    "SnapshotFault", "Cannot snapshot a VM with a multi-writer disk."
                )
            if self.consolidation_needed and self._last_link > 1000:
                raise OperationRefused("SnapshotFault", "Disk consolidation is needed.")
            running = self.power_state == "poweredOn"
            quiesce = quiesce and running and not memory
            if quiesce and not self.tools_running:
                raise OperationRefused(
                    "FilesystemQuiesceFault",
                    "The guest's file systems cannot be quiesced: VMware Tools is not running.",
                )
            self._stun()
            self._last_snapshot += 1
            self._last_link += 1
            disks, links = freeze_disks(
                [disk for disk in self.disks if disk.in_snapshots],
                self._last_link,
                without_change_ids,
            )
            snapshot = Snapshot(
                moid=f"{self.moid}-snapshot-{self._last_snapshot}",
                number=self._last_snapshot,
                name=name,
                description=description,
                created=datetime.now(UTC) - age,
                quiesced=quiesce,
                vm_name=self.name,
                power_state=self.power_state if memory else "poweredOff",
                change_tracking_enabled=self.change_tracking_enabled,
                parent=self.current_snapshot,
                disks=disks,
                links=links,
                others=[FrozenDisk.of(disk) for disk in self.disks if not disk.in_snapshots],
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

    def revert(self, snapshot: Snapshot, *, tracking: RevertedTracking = "new") -> None:
        """Go back to a snapshot: bytes, disks and their places, whether changes are tracked.

        `tracking` is what becomes of it where the snapshot had it; elsewhere it is reset.
        Raises ValueError for another word.
        """
        if tracking not in REVERTED_TRACKING:
            raise ValueError(f"tracking {tracking!r} is none of {', '.join(REVERTED_TRACKING)}")
        with self.lock:
            self._stun()
            self._last_link += 1
            self._devices.restore([*snapshot.disks, *snapshot.others])
            self.change_tracking_enabled = snapshot.change_tracking_enabled
            for frozen in snapshot.disks:
                disk = frozen.disk
                disk.revert(self._last_link, snapshot.links[frozen.key])
                if frozen.tracking and frozen.change_id:
                    disk.revert_tracking(tracking, frozen.tracking, frozen.change_id)
                else:
                    disk.reset_tracking()
            self.current_snapshot = snapshot
            self.power_state = snapshot.power_state
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
                for disk in self._devices.all:
                    self._devices.consolidate(disk, self.snapshots, self.reader_patience_s)
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
        disk = next((one for one in self.disks if one.key == key), None)
        if disk is None:
            raise OperationRefused("InvalidArgument", "deviceKey")
        if self.power_state == "poweredOn" or disk.tracking is None:
            raise OperationRefused("FileFault", "no snapshot, and the VM runs or is untracked")
        return TrackedDisk(disk, disk.capacity_bytes, disk.tracking, None, disk.current)

    def close(self) -> None:
        """Close all files."""
        with self.lock:
            self._devices.close()

    def frozen_content(self, snapshot: Snapshot, key: int) -> bytes:
        """All bytes of a disk as a snapshot froze it; for small disks. Raises KeyError."""
        with self.lock:
            view = ChainView(snapshot.links[key])
            return view.read(0, view.capacity_bytes)
