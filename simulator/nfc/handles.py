"""Disk handles of an NFC session: which links may be opened, and what they answer."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.disks.disk import SimulatedDisk
from simulator.disks.link import ChainView, Link, Segment
from simulator.machines import SimulatedVm
from simulator.nfc.frames import Code, OpenFile
from simulator.nfc.tickets import Ticket

_HEADS = 255
_SECTORS = 63
_SECTOR_BYTES = 512
_LARGEST_CYLINDERS = 0xFFFFFFFF


class NfcError(Exception):
    """The request is answered with an error; the connection stays."""

    def __init__(self, code: Code | int, problem: str) -> None:
        super().__init__(problem)
        self.code = code


@dataclass
class Handle:
    """An open link. It holds a lease on its disk until `close`."""

    number: int
    disk: SimulatedDisk
    link: Link
    view: ChainView
    flags: int
    writable: bool
    closed: bool = False

    def segments(self, offset: int, length: int) -> list[Segment]:
        """Where the bytes of a range are. Raises NfcError outside the disk."""
        if length <= 0 or offset + length > self.view.capacity_bytes:
            raise NfcError(
                Code.BAD_ARGUMENT,
                f"{length} bytes at {offset} are not inside {self.view.capacity_bytes} bytes",
            )
        return self._fresh().segments(offset, length)

    def _fresh(self) -> ChainView:
        """Frozen links never change; the current link of a stopped VM may."""
        if self.link is self.disk.current:
            with self.disk.lock:
                self.view = ChainView(self.link)
        return self.view

    def write(self, offset: int, data: bytes) -> None:
        """Write as the guest would. Raises NfcError."""
        if not self.writable:
            raise NfcError(Code.WRITE_REFUSED, "the disk was opened for reading only")
        try:
            self.disk.write(offset, data)
        except ValueError as error:
            raise NfcError(Code.BAD_ARGUMENT, str(error)) from error

    def allocated(self, start: int, chunk_bytes: int, chunk_count: int) -> npt.NDArray[np.bool_]:
        """Per chunk: whether any grain of it has storage. Raises NfcError for odd chunks."""
        view = self._fresh()
        grain = 64 * 1024
        if (
            chunk_bytes < grain
            or chunk_bytes % grain
            or start % chunk_bytes
            or chunk_count == 0
            or start + chunk_bytes * chunk_count > view.capacity_bytes
        ):
            raise NfcError(Code.BAD_ARGUMENT, "the query is not made of whole chunks of the disk")
        first = start // grain
        grains = view.allocated[first : first + chunk_count * (chunk_bytes // grain)]
        grouped = grains.reshape(chunk_count, -1)
        return np.asarray(grouped.any(axis=1), np.bool_)

    @property
    def geometry(self) -> tuple[int, int, int]:
        """Cylinders, heads and sectors as ESXi counts them for large disks."""
        cylinders = self.view.capacity_bytes // (_HEADS * _SECTORS * _SECTOR_BYTES)
        return min(max(cylinders, 1), _LARGEST_CYLINDERS), _HEADS, _SECTORS

    def database(self, key: str) -> str | None:
        """A value of the disk's database (the descriptor's `ddb.` lines); None: no such key."""
        cylinders, heads, sectors = self.geometry
        return {
            "adapterType": "lsilogic",
            "uuid": self._ddb_uuid(),
            "geometry.cylinders": str(cylinders),
            "geometry.heads": str(heads),
            "geometry.sectors": str(sectors),
            "geometry.biosCylinders": str(cylinders),
            "geometry.biosHeads": str(heads),
            "geometry.biosSectors": str(sectors),
            "thinProvisioned": "1",
            "virtualHWVersion": "21",
            "longContentID": self.disk.uuid.replace("-", ""),
        }.get(key)

    def _ddb_uuid(self) -> str:
        digits = self.disk.uuid.replace("-", "").lower().ljust(32, "0")
        octets = [digits[at : at + 2] for at in range(0, 32, 2)]
        return " ".join(octets[:8]) + "-" + " ".join(octets[8:])

    def close(self) -> None:
        """Give the lease back; may be called twice."""
        if not self.closed:
            self.closed = True
            self.disk.release()


def open_handle(ticket: Ticket, path: str, flags: int, number: int) -> Handle:
    """Open a disk file by its datastore path. Raises NfcError."""
    vm = ticket.vm
    with vm.lock:
        disk, link = _find(vm, path)
        if ticket.disk_key is not None and disk.key != ticket.disk_key:
            raise NfcError(Code.NOT_FOUND, "the ticket is for another disk")
        writable = not flags & OpenFile.READ_ONLY & ~OpenFile.READ_WRITE
        if writable and not ticket.writable:
            raise NfcError(Code.WRITE_REFUSED, "the ticket is for reading only")
        if link is disk.current and vm.power_state != "poweredOff":
            raise NfcError(Code.LOCKED, "the link is in use by the running VM")
        if writable and link is not disk.current:
            raise NfcError(Code.WRITE_REFUSED, "a snapshot holds the link")
        disk.lease()
        return Handle(number, disk, link, ChainView(link), flags, writable)


def _find(vm: SimulatedVm, path: str) -> tuple[SimulatedDisk, Link]:
    for disk in vm.all_disks:
        for link in vm.links(disk):
            if link.file_name == path:
                return disk, link
    raise NfcError(Code.NOT_FOUND, f"no disk file {path}")
