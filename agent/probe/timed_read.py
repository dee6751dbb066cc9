"""The timed read: up to 64 MiB of a disk that nobody writes, through the agent's own transport.

A powered-off VM's disk, or what an existing snapshot froze. Nothing is made for it;
while it lasts, some seconds, the host keeps the file open for reading, so that the VM
cannot be powered on, or the snapshot's disks not be merged.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from agent.areas import Area, split_extents, whole_disk
from agent.cancellation import Cancellation
from agent.probe.errors import ReadTooSlow
from agent.probe.report import ReadReport
from agent.transports.disk_reader import DiskReader
from agent.transports.errors import AllocationUnknown
from agent.vsphere.models import FrozenDisk, JobSnapshot, SurveyedVm
from agent.vsphere.site import VsphereSite
from shared.errors import SendenseError

READ_BYTES: Final = 64 << 20
LIMIT_S: Final = 300.0
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Source:
    vm: SurveyedVm
    snapshot: str
    moref: str
    """Of the snapshot; empty: the VM is off and has none."""
    disk: FrozenDisk


def timed_read(site: VsphereSite, machines: list[SurveyedVm], transport: str) -> ReadReport:
    """Read the first disk that can be; a failure is part of the answer, not an error."""
    measured = _Measured()
    source: _Source | None = None
    problem: SendenseError | None = None
    cancellation = Cancellation()
    overdue = threading.Timer(LIMIT_S, cancellation.cancel, [ReadTooSlow(LIMIT_S)])
    overdue.daemon = True
    overdue.start()
    try:
        source = _source(site, machines)
        if source is not None:
            _read(site, source, measured, cancellation)
    except SendenseError as error:
        stopped = cancellation.error
        problem = stopped if isinstance(stopped, SendenseError) else error
    finally:
        overdue.cancel()
    return _report(source, measured, transport, problem)


def _source(site: VsphereSite, machines: list[SurveyedVm]) -> _Source | None:
    """A disk with as much to read as there is; VMs that are off before snapshots."""
    off = [
        _Source(vm, "", "", disk)
        for vm in machines
        if vm.is_off and not vm.info.snapshots
        for disk in vm.disks_now
    ]
    if off:
        return _largest(off)
    for vm in machines:
        for snapshot in vm.info.snapshots:
            disks = site.frozen_disks(snapshot.moref)
            if disks:
                found = [_Source(vm, snapshot.name, snapshot.moref, disk) for disk in disks]
                return _largest(found)
    return None


def _largest(sources: list[_Source]) -> _Source:
    return max(sources, key=lambda one: min(one.disk.capacity_bytes, READ_BYTES))


class _Measured:
    """How far the read came; filled as it goes, so that a failure leaves what was seen."""

    def __init__(self) -> None:
        self.wanted_bytes = 0
        self.read_bytes = 0
        self.allocated_only = False
        self.open_s = 0.0
        self.read_s = 0.0


def _read(
    site: VsphereSite, source: _Source, measured: _Measured, cancellation: Cancellation
) -> None:
    snapshot = JobSnapshot(
        source.moref, source.vm.info.moref, source.snapshot, "crash", [source.disk], []
    )
    started = time.perf_counter()
    with site.open_disk(snapshot, source.disk, cancellation) as reader:
        measured.open_s = time.perf_counter() - started
        areas, measured.allocated_only = _areas(reader)
        pieces = list(_first(split_extents(areas), READ_BYTES))
        measured.wanted_bytes = sum(piece.length for piece in pieces)
        started = time.perf_counter()
        for extent in reader.read(pieces):
            measured.read_bytes += len(extent.data)
            measured.read_s = time.perf_counter() - started


def _areas(reader: DiskReader) -> tuple[list[Area], bool]:
    """What holds data, as holes cost nothing to read; all of the disk when that is not known."""
    try:
        areas = reader.allocated_areas()
    except AllocationUnknown:
        areas = []
    return (areas, True) if areas else (whole_disk(reader.capacity_bytes), False)


def _first(pieces: Iterable[Area], limit_bytes: int) -> Iterator[Area]:
    for piece in pieces:
        if limit_bytes <= 0:
            return
        yield Area(piece.start, min(piece.length, limit_bytes))
        limit_bytes -= piece.length


def _report(
    source: _Source | None, measured: _Measured, transport: str, problem: SendenseError | None
) -> ReadReport:
    told, code = (str(problem), problem.code) if problem is not None else ("", "")
    if source is None and problem is None:
        told = (
            "nothing to read: no VM is powered off and none has a snapshot; take a snapshot of a "
            "VM or power one off, then probe again"
        )
    kind = "" if source is None else "snapshot" if source.moref else "powered-off VM"
    return ReadReport(
        source=kind,
        vm=source.vm.info.name if source else "",
        snapshot=source.snapshot if source else "",
        disk=source.disk.label if source else "",
        file_name=source.disk.file_name if source else "",
        transport=transport,
        wanted_bytes=measured.wanted_bytes,
        read_bytes=measured.read_bytes,
        allocated_only=measured.allocated_only,
        open_s=round(measured.open_s, 3),
        read_s=round(measured.read_s, 3),
        mib_per_s=(
            round(measured.read_bytes / _MIB / measured.read_s, 1) if measured.read_s else 0.0
        ),
        problem=told,
        problem_code=code,
    )
