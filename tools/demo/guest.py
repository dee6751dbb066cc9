"""The guest of the demo's VM: what its two disks hold, and what it does between backups."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.demo.guest_files import (
    Area,
    change_files,
    make_file_system,
    places_of_file,
    read_file,
)
from tools.installed_files import installed_files

VM_NAME: Final = "pgtest1"
DISK_0_BYTES: Final = 102 << 30
DISK_1_BYTES: Final = 5 << 30
FILES_BYTES: Final = 300 << 20
MIB: Final = 1 << 20

# Disk 1 is a raw volume: ten pieces of 4 MiB, half a GiB apart.
PIECES: Final = 10
PIECE_BYTES: Final = 4 * MIB
PIECE_STRIDE: Final = 512 * MIB


@dataclass(frozen=True, slots=True)
class Change:
    """One thing the guest does to a disk. `content` is a file of `area.length` bytes for "write"."""

    disk: int
    kind: str  # "write", "zero" or "trim"
    area: Area
    content: Path | None = None


class Guest:
    """Keeps a private image of what each disk should hold by now; changes it in step with the VM.

    `apply` does a change to the VM's disk. Everything is derived from a fixed seed.
    """

    def __init__(self, folder: Path, apply: Callable[[Change], None]) -> None:
        self._folder = folder
        self._apply = apply
        self._random = random.Random(20251008)
        self._wal: dict[str, bytes] = {}
        self.disk_0 = folder / "disk-0.raw"
        self.disk_1 = folder / "disk-1.raw"

    def make_disks(self) -> str:
        """Write both images; a sentence about them."""
        self._folder.mkdir(parents=True)
        tables = {f"pg/base/{16384 + n}": self._pages(8 * MIB) for n in range(4)}
        count = make_file_system(
            self.disk_0, capacity_bytes=DISK_0_BYTES, files_bytes=FILES_BYTES, own_files=tables
        )
        text = b"".join(path.read_bytes() for path in installed_files(PIECES * PIECE_BYTES // 2))
        with self.disk_1.open("wb") as disk:
            os.ftruncate(disk.fileno(), DISK_1_BYTES)
            for number in range(PIECES):
                half = PIECE_BYTES // 2
                piece = text[number * half : (number + 1) * half] + self._random.randbytes(half)
                os.pwrite(disk.fileno(), piece, number * PIECE_STRIDE)
        return f"ext4 with {count} files on disk 0, {PIECES} areas of data on disk 1"

    def work(self, number: int) -> list[str]:
        """What the guest does before backup `number`; sentences about it."""
        return [*self._work_on_files(number), *self._work_on_volume(number)]

    def files_are_there(self, image: Path) -> bool:
        """True when a disk 0 holds, as files, all that the guest has written so far."""
        scratch = self._folder / "read-back"
        return all(read_file(image, name, scratch) == data for name, data in self._wal.items())

    def _work_on_files(self, number: int) -> list[str]:
        """In-place changes of database files, then new and removed files."""
        table = _longest(places_of_file(self.disk_0, "pg/base/16384"))
        page = Area(table.start + number * MIB, min(3 * MIB, table.length - number * MIB))
        self._write(0, page.start, self._pages(page.length))
        emptied = _longest(places_of_file(self.disk_0, "pg/base/16385"))
        self._clear(0, "zero", Area(emptied.start + number * MIB, MIB + 4096))
        dropped = f"pg/base/{16385 + number}"
        freed = places_of_file(self.disk_0, dropped)

        wal = f"pg/wal-{number:08}"
        self._wal[wal] = self._pages(12 * MIB)
        source = self._folder / "wal"
        source.write_bytes(self._wal[wal])
        after = self._folder / "disk-0.next"
        areas = change_files(self.disk_0, after, [f"write {source} {wal}", f"rm {dropped}"])
        after.replace(self.disk_0)
        source.unlink()
        with self.disk_0.open("rb") as disk:
            for area in areas:
                self._send_write(0, area, os.pread(disk.fileno(), area.length, area.start))
        for area in freed:
            self._clear(0, "trim", area)
        return [
            f"disk 0: overwrites {page.length // MIB} MiB of a table, zeroes 1 MiB of another",
            f"disk 0: writes the file {wal} (12 MiB), removes {dropped} and trims its blocks",
        ]

    def _work_on_volume(self, number: int) -> list[str]:
        piece = (number - 1) * PIECE_STRIDE
        # Off the grids of clusters and of change tracking on purpose.
        self._write(1, piece + 12345 * 512, self._pages(700 * 512))
        self._write(1, piece + PIECE_STRIDE // 2, self._random.randbytes(4 * MIB))
        self._clear(1, "zero", Area(piece + 2 * PIECE_STRIDE + 100 * 512, 2 * MIB))
        self._clear(1, "trim", Area(piece + 4 * PIECE_STRIDE + MIB, MIB))
        self._write(1, DISK_1_BYTES - number * MIB, self._pages(MIB))
        return [
            "disk 1: overwrites 350 KiB off every grid, writes 5 MiB of new areas (one at the end), "
            "zeroes 2 MiB, trims 1 MiB"
        ]

    def _pages(self, length: int) -> bytes:
        """Bytes that compress about as database pages do: half of each page is filled."""
        pages = [self._random.randbytes(2048) + bytes(2048) for _ in range(-(-length // 4096))]
        return b"".join(pages)[:length]

    def _write(self, disk: int, start: int, data: bytes) -> None:
        """Change the private image and the VM's disk."""
        self._change_image(disk, start, data)
        self._send_write(disk, Area(start, len(data)), data)

    def _clear(self, disk: int, kind: str, area: Area) -> None:
        self._change_image(disk, area.start, bytes(area.length))
        self._apply(Change(disk, kind, area))

    def _send_write(self, disk: int, area: Area, data: bytes) -> None:
        content = self._folder / "content"
        content.write_bytes(data)
        self._apply(Change(disk, "write", area, content))
        content.unlink()

    def _change_image(self, disk: int, start: int, data: bytes) -> None:
        with (self.disk_0, self.disk_1)[disk].open("rb+") as image:
            os.pwrite(image.fileno(), data, start)


def _longest(areas: list[Area]) -> Area:
    return max(areas, key=lambda area: area.length)
