"""The timed read: up to 64 MiB of a disk that nobody writes, through the agent's own transport.

A powered-off VM's disk, or what an existing snapshot froze. Nothing is made for it;
while it lasts, some seconds, the host keeps the file open for reading, so that the VM
cannot be powered on, or the snapshot's disks not be merged. So a VM that a backup has
a snapshot of is left alone: the backup's end would have to wait.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from agent.areas import Area, split_extents, whole_disk
from agent.cancellation import Cancellation
from agent.probe.errors import ReadTooSlow
from agent.probe.report import FailedRead, ReadReport
from agent.transports.disk_reader import DiskReader
from agent.transports.errors import AllocationUnknown
from agent.vsphere.errors import CertificateMismatch, LoginFailed
from agent.vsphere.models import FrozenDisk, JobSnapshot, SnapshotInfo, SurveyedVm
from agent.vsphere.site import VsphereSite
from agent.vsphere.snapshot_tree import is_sendense
from shared.errors import SendenseError

READ_BYTES: Final = 64 << 20
LIMIT_S: Final = 300.0
_MIB: Final = 1 << 20
_NO_OTHER_HELPS: Final = (LoginFailed, CertificateMismatch)
"""About the site, not about what was tried; and a password is not tried again and again."""


@dataclass(slots=True)
class _Measured:
    """How far a read came; filled as it goes, so that a failure leaves what was seen."""

    wanted_bytes: int = 0
    read_bytes: int = 0
    allocated_only: bool = False
    open_s: float = 0.0
    read_s: float = 0.0


@dataclass(slots=True)
class _Attempt:
    """A disk that was to be read, and what came of it."""

    vm: SurveyedVm
    snapshot: SnapshotInfo | None
    """None: the VM is off and has none."""
    disk: FrozenDisk | None
    """None: the snapshot's disks could not be asked for."""
    problem: SendenseError | None = None
    measured: _Measured = field(default_factory=_Measured)

    @property
    def source(self) -> str:
        return "snapshot" if self.snapshot else "powered-off VM"


def timed_read(site: VsphereSite, machines: list[SurveyedVm], transport: str) -> ReadReport:
    """Read the first disk that can be; a failure is part of the answer, not an error."""
    cancellation = Cancellation()
    overdue = threading.Timer(LIMIT_S, cancellation.cancel, [ReadTooSlow(LIMIT_S)])
    overdue.daemon = True
    overdue.start()
    attempts: list[_Attempt] = []
    try:
        for attempt in _attempts(site, machines, cancellation):
            attempts.append(attempt)
            if attempt.problem is None or isinstance(attempt.problem, _NO_OTHER_HELPS):
                break
            if cancellation.error is not None:
                break
    finally:
        overdue.cancel()
    return _report(attempts, transport)


def _attempts(
    site: VsphereSite, machines: list[SurveyedVm], cancellation: Cancellation
) -> Iterator[_Attempt]:
    """One read after the other, for as long as the caller asks; VMs that are off before snapshots."""
    off = [
        _Attempt(vm, None, disk)
        for vm in machines
        if vm.is_off and not vm.info.snapshots
        for disk in vm.disks_now
    ]
    for attempt in _largest_first(off):
        yield _tried(site, attempt, cancellation)
    for vm in machines:
        if any(is_sendense(snapshot) for snapshot in vm.info.snapshots):
            continue
        for snapshot in vm.info.snapshots:
            try:
                disks = site.frozen_disks(snapshot.moref)
            except SendenseError as error:
                yield _Attempt(vm, snapshot, None, error)
                continue
            for attempt in _largest_first([_Attempt(vm, snapshot, disk) for disk in disks]):
                yield _tried(site, attempt, cancellation)


def _largest_first(attempts: list[_Attempt]) -> list[_Attempt]:
    """Those with most to read first; what is beyond the limit does not count."""
    return sorted(attempts, key=lambda one: -min(_capacity(one), READ_BYTES))


def _capacity(attempt: _Attempt) -> int:
    return attempt.disk.capacity_bytes if attempt.disk else 0


def _tried(site: VsphereSite, attempt: _Attempt, cancellation: Cancellation) -> _Attempt:
    """The attempt, made."""
    assert attempt.disk is not None
    moref, name = (attempt.snapshot.moref, attempt.snapshot.name) if attempt.snapshot else ("", "")
    snapshot = JobSnapshot(moref, attempt.vm.info.moref, name, "crash", [attempt.disk], [])
    try:
        _read(site, snapshot, attempt.disk, attempt.measured, cancellation)
    except SendenseError as error:
        stopped = cancellation.error
        attempt.problem = stopped if isinstance(stopped, SendenseError) else error
    return attempt


def _read(
    site: VsphereSite,
    snapshot: JobSnapshot,
    disk: FrozenDisk,
    measured: _Measured,
    cancellation: Cancellation,
) -> None:
    started = time.perf_counter()
    with site.open_disk(snapshot, disk, cancellation) as reader:
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


def _report(attempts: list[_Attempt], transport: str) -> ReadReport:
    """About the last attempt: the one that went well, if any did."""
    last = attempts[-1] if attempts else None
    measured = last.measured if last else _Measured()
    problem = last.problem if last else None
    told = str(problem) if problem else ""
    if last is None:
        told = (
            "nothing to read: no VM is powered off and none has a snapshot, but for those that a "
            "backup has one of; take a snapshot of a VM or power one off, then probe again"
        )
    return ReadReport(
        source=last.source if last else "",
        vm=last.vm.info.name if last else "",
        snapshot=last.snapshot.name if last and last.snapshot else "",
        disk=last.disk.label if last and last.disk else "",
        file_name=last.disk.file_name if last and last.disk else "",
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
        problem_code=problem.code if problem else "",
        failed_before=[_failed(one) for one in attempts[:-1]],
    )


def _failed(attempt: _Attempt) -> FailedRead:
    return FailedRead(
        source=attempt.source,
        vm=attempt.vm.info.name,
        snapshot=attempt.snapshot.name if attempt.snapshot else "",
        disk=attempt.disk.label if attempt.disk else "",
        problem=str(attempt.problem),
        problem_code=attempt.problem.code if attempt.problem else "",
    )
