"""What the tests of this folder write, and what of it they must get back."""

import random
from dataclasses import dataclass

from sendense import Backup, BackupDisk, ReadMethod
from simulator.disks.disk import DiskSpec, SimulatedDisk
from simulator.machines import SimulatedVm
from tests.model.disks import CLUSTER
from tests.model.world import World

CHANGED, COMPARED, ALLOCATED = ReadMethod.CHANGED, ReadMethod.COMPARED, ReadMethod.ALLOCATED


@dataclass
class GuestDisk:
    """A simulated disk, and its bytes as the test keeps them itself."""

    simulated: SimulatedDisk
    content: bytearray
    seed: int = 0

    @property
    def uuid(self) -> str:
        return self.simulated.uuid

    def write(self, cluster: int, count: int = 1) -> None:
        """Random bytes over whole clusters, others each time."""
        self.seed += 1
        end = min((cluster + count) * CLUSTER, len(self.content))
        source = random.Random(f"{self.uuid}{self.seed}")
        self.write_bytes(cluster * CLUSTER, source.randbytes(end - cluster * CLUSTER))

    def write_bytes(self, offset: int, data: bytes) -> None:
        self.simulated.write(offset, data)
        self.content[offset : offset + len(data)] = data

    def trim(self, offset: int, length: int) -> None:
        self.simulated.trim(offset, length)
        self.content[offset : offset + length] = bytes(length)

    def zero(self, offset: int, length: int) -> None:
        self.simulated.zero(offset, length)
        self.content[offset : offset + length] = bytes(length)

    def grow(self, capacity_bytes: int) -> None:
        self.simulated.grow(capacity_bytes)
        self.content.extend(bytes(capacity_bytes - len(self.content)))

    def frozen(self) -> bytes:
        """What it holds now, kept."""
        return bytes(self.content)


def add_disk(
    vm: SimulatedVm,
    clusters: int = 96,
    *,
    filled: int = 32,
    key: int | None = None,
    controller: int = 0,
    tail: int = 0,
) -> GuestDisk:
    """A disk of some clusters and `tail` bytes, the first `filled` clusters written."""
    capacity = clusters * CLUSTER + tail
    spec = DiskSpec(capacity, key=key, controller=controller)
    disk = GuestDisk(vm.add_disk(spec), bytearray(capacity))
    if filled:
        disk.write(0, filled)
    return disk


def row(job: Backup, disk: GuestDisk) -> BackupDisk:
    """The job's row of a disk, by the disk's uuid."""
    return next(one for one in job.disks if one.disk_uuid == disk.uuid)


def codes(job: Backup) -> list[str]:
    """Codes of the job's warnings, sorted."""
    return sorted(warning.code for warning in job.warnings)


def assert_restores(world: World, job: Backup, contents: dict[str, bytes]) -> None:
    """Every disk of the job, by uuid, restores to these bytes; there are no others."""
    assert {one.disk_uuid for one in job.disks} == contents.keys()
    for one in job.disks:
        restored = world.restored(job.job_id, one.disk_index)
        assert restored == contents[one.disk_uuid], f"{job.job_id} disk {one.disk_index}"


def frozen(*disks: GuestDisk) -> dict[str, bytes]:
    """What these disks hold now, by uuid."""
    return {disk.uuid: disk.frozen() for disk in disks}
