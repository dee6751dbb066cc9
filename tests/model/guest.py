"""The VM twice: what the simulator makes of each act, and what the model says the disks hold then."""

import random
from dataclasses import dataclass, field
from typing import Final, Literal

from simulator.disks.disk import DiskSpec, SimulatedDisk
from simulator.disks.tracking import RevertedTracking
from simulator.machines import SimulatedVm
from simulator.snapshots import Snapshot
from tests.model.disks import CLUSTER, Image, ModelDisk, clusters_of

MOST_DISKS: Final = 3
Verb = Literal["write", "rewrite", "zero", "trim"]


@dataclass(frozen=True)
class Act:
    """Something the guest does to a disk.

    `disk` counts around the VM's disks, `cluster` around the disk's (negative: from its end),
    `shift` is bytes into the cluster; the length is cut at the disk's end.
    """

    verb: Verb
    disk: int
    cluster: int
    shift: int
    length: int
    seed: int = 0


@dataclass
class UserSnapshot:
    """A snapshot that somebody else made, with what it froze, by the disks' uuids."""

    snapshot: Snapshot
    images: dict[str, Image]


@dataclass
class DiskHistory:
    """What happened to a disk since a backup last read it: when tracking cannot be enough."""

    grown: bool = False
    untracked: str = ""  # why its tracking began anew or went back


@dataclass
class GuestVm:
    """A simulated VM and its model; every change goes through here, to both."""

    vm: SimulatedVm
    disks: dict[str, ModelDisk] = field(default_factory=dict)
    snapshots: list[UserSnapshot] = field(default_factory=list)
    history: dict[str, DiskHistory] = field(default_factory=dict)
    _names: int = 0

    def add_disk(self, capacity_bytes: int) -> None:
        disk = self.vm.add_disk(DiskSpec(capacity_bytes))
        self.disks[disk.uuid] = ModelDisk(disk.uuid, capacity_bytes)
        self.history[disk.uuid] = DiskHistory()

    def simulated(self, index: int) -> SimulatedDisk:
        """The disk of a number, counted around."""
        return self.vm.disks[index % len(self.vm.disks)]

    def remove_disk(self, index: int) -> None:
        """Detach it; snapshots that hold it bring it back."""
        disk = self.simulated(index)
        self.vm.remove_disk(disk)
        del self.disks[disk.uuid]
        del self.history[disk.uuid]

    def move_disk(self, index: int, controller: int) -> None:
        """Behind another controller: it has another key then."""
        disk = self.simulated(index)
        if disk.controller != controller:
            self.vm.move_disk(disk, controller)

    def reorder_disks(self, seed: int) -> None:
        """Let the disks change places and keys."""
        order = list(self.vm.disks)
        random.Random(seed).shuffle(order)
        self.vm.reorder_disks(order)

    def grow(self, disk: SimulatedDisk, capacity_bytes: int) -> None:
        disk.grow(capacity_bytes)
        self.disks[disk.uuid].grow(capacity_bytes)
        self.history[disk.uuid].grown = True

    def act(self, act: Act) -> tuple[SimulatedDisk, range]:
        """Do it to both; the disk, and the clusters that it touched."""
        disk = self.simulated(act.disk)
        model = self.disks[disk.uuid]
        count = len(clusters_of(0, model.capacity_bytes))
        offset = act.cluster % count * CLUSTER + act.shift
        if offset >= model.capacity_bytes:
            offset -= act.shift
        length = min(act.length, model.capacity_bytes - offset)
        match act.verb:
            case "write":
                data = random.Random(act.seed).randbytes(length)
                disk.write(offset, data)
                model.write(offset, data)
            case "rewrite":  # the same bytes once more: changed for the tracking alone
                disk.write(offset, model.read(offset, length))
            case "zero":
                disk.zero(offset, length)
                model.zero(offset, length)
            case "trim":
                disk.trim(offset, length)
                model.zero(offset, length)
        return disk, clusters_of(offset, length)

    def images(self) -> dict[str, Image]:
        """What every disk holds now, by uuid."""
        return {uuid: disk.image() for uuid, disk in self.disks.items()}

    def reset_tracking(self) -> None:
        self.vm.reset_tracking()
        self._distrust("tracking was reset")

    def switch_tracking_off(self) -> None:
        """As an administrator may; a stun, such as a backup's snapshot, makes it so."""
        self.vm.reconfigure(change_tracking_enabled=False)
        self._distrust("tracking was switched off")

    def cycle_power(self) -> None:
        """Off and on again, cleanly: tracking survives this."""
        self.vm.power("poweredOff")
        self.vm.power("poweredOn")

    def take_snapshot(self) -> None:
        self._names += 1
        made = self.vm.create_snapshot(f"before update {self._names}")
        self.snapshots.append(UserSnapshot(made, self.images()))

    def revert(self, index: int, tracking: RevertedTracking) -> None:
        """`tracking`: but for "new", change ids of before look valid afterwards."""
        chosen = self.snapshots[index % len(self.snapshots)]
        self.vm.revert(chosen.snapshot, tracking=tracking)
        self.vm.power("poweredOn")
        self.disks = {uuid: ModelDisk.of(uuid, image) for uuid, image in chosen.images.items()}
        self.history = {uuid: DiskHistory() for uuid in self.disks}
        self._distrust("the VM was reverted to a snapshot")

    def remove_snapshot(self, index: int) -> None:
        chosen = self.snapshots.pop(index % len(self.snapshots))
        self.vm.remove_snapshot(chosen.snapshot)

    def backed_up(self, untracked: str) -> None:
        """A backup has read all disks: what happened before does not matter to the next one.

        `untracked`: why it has no change ids that the next one could ask with, or "".
        """
        if self.snapshots:
            untracked = "the last backup was made over snapshots"
        self.history = {uuid: DiskHistory(untracked=untracked) for uuid in self.disks}

    def calm_disks(self) -> set[str]:
        """Those of which nothing happened, since the last backup, that tracking cannot tell of.

        While there are snapshots nobody knows whether the VM was reverted.
        """
        if self.snapshots:
            return set()
        return {uuid for uuid, one in self.history.items() if one == DiskHistory()}

    def _distrust(self, why: str) -> None:
        for one in self.history.values():
            one.untracked = why
