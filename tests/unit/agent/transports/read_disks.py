"""Disks of the simulated host: what they hold, and reading them whole."""

import random
from collections.abc import Iterator

from agent.areas import Area
from agent.cancellation import Cancellation
from agent.transports.disk_reader import LARGEST_READ_BYTES, DiskReader
from agent.transports.nfc.patience import ReconnectPatience
from agent.transports.nfc.reconnecting import ReconnectingReader
from agent.vsphere.models import JobSnapshot
from agent.vsphere.site import VsphereSite
from simulator.machines import SimulatedVm

K = 65536
CAPACITY = 150 * K + 1536
DEADLINE_S = 20.0
ATTEMPTS = 4
EAGER = ReconnectPatience(
    attempts=ATTEMPTS, first_wait_s=0.01, longest_wait_s=0.02, open_wait_s=0.01
)


def content(seed: int, capacity_bytes: int = CAPACITY) -> bytes:
    """Data, holes and zeros off every grid."""
    drawn = random.Random(seed)
    made = bytearray(capacity_bytes)
    for _ in range(40):
        start = drawn.randrange(capacity_bytes)
        length = min(drawn.choice([1, 511, 4096, 3 * K]), capacity_bytes - start)
        made[start : start + length] = drawn.randbytes(length)
    return bytes(made)


def take(vsphere: VsphereSite, vm: SimulatedVm) -> JobSnapshot:
    """A job's snapshot."""
    return vsphere.take_snapshot(
        job_id="job",
        vm_moref=vm.moid,
        instance_uuid=vm.instance_uuid,
        quiesce=False,
        owner="agent-1",
    )


def pieces(areas: list[Area], longest: int = LARGEST_READ_BYTES) -> Iterator[Area]:
    """Areas cut into reads."""
    for area in areas:
        for start in range(area.start, area.end, longest):
            yield Area(start, min(longest, area.end - start))


def whole(reader: DiskReader, longest: int = LARGEST_READ_BYTES) -> bytes:
    """All bytes of the disk; every extent is the one asked for."""
    areas = list(pieces([Area(0, reader.capacity_bytes)], longest))
    extents = list(reader.read(areas))
    assert [(one.offset, len(one.data)) for one in extents] == [(a.start, a.length) for a in areas]
    assert all(type(one.data) is bytes for one in extents)
    return b"".join(one.data for one in extents)


def opened(
    vsphere: VsphereSite, snapshot: JobSnapshot, job: Cancellation | None = None
) -> ReconnectingReader:
    reader = vsphere.open_disk(snapshot, snapshot.disks[0], job or Cancellation())
    assert isinstance(reader, ReconnectingReader)
    return reader
