"""The demo VM's first disk: a real ext4 file system, and what its guest does to it.

The guest's changes are made by debugfs on a private copy of the disk; the
blocks that differ afterwards are what the guest "wrote". So the file system
stays a valid one at every restore point.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.installed_files import installed_files
from tools.paths import system_program
from tools.sparse import copy_sparse, differences

BLOCK_BYTES: Final = 4096
TOOL_TIMEOUT_S: Final = 120
# Areas closer than this are sent as one: the same bytes once more do no harm.
JOIN_GAP_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Area:
    """A part of a disk, in bytes."""

    start: int
    length: int


def make_file_system(image: Path, *, capacity_bytes: int, files_bytes: int) -> int:
    """Make a sparse image with an ext4 file system full of installed files; their count.

    The image costs what its files cost: inode tables and journal are not written out.
    """
    staging = image.with_name(image.name + ".files")
    shutil.rmtree(staging, ignore_errors=True)
    files = installed_files(files_bytes)
    for number, source in enumerate(files):
        folder = staging / "srv" / f"{number // 500:02}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / f"{number:05}{source.suffix}")
    with image.open("wb") as file:
        os.ftruncate(file.fileno(), capacity_bytes)
    _tool(
        system_program("mkfs.ext4"),
        *("-q", "-F", "-b", str(BLOCK_BYTES), "-m", "0", "-J", "size=16", "-L", "pgtest1"),
        *("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-d", str(staging)),
        str(image),
    )
    shutil.rmtree(staging)
    return len(files)


def change_files(before: Path, after: Path, commands: Sequence[str]) -> list[Area]:
    """Copy `before` to `after`, run debugfs commands on the copy; the areas that differ."""
    copy_sparse(before, after)
    script = after.with_name(after.name + ".debugfs")
    script.write_text("".join(f"{command}\n" for command in commands))
    output = _tool(system_program("debugfs"), "-w", "-f", str(script), str(after))
    script.unlink()
    # debugfs ends with 0 whatever happened; what it says beside the echoed
    # commands and new inodes' numbers is an error.
    complaints = [
        line
        for line in output.splitlines()
        if line and not line.startswith(("debugfs", "Allocated inode:"))
    ]
    if complaints:
        raise RuntimeError(f"debugfs: {complaints[0]}")
    areas: list[Area] = []
    for start, end in differences(before, after):
        if areas and start - (areas[-1].start + areas[-1].length) <= JOIN_GAP_BYTES:
            areas[-1] = Area(areas[-1].start, end - areas[-1].start)
        else:
            areas.append(Area(start, end - start))
    return areas


def blocks_of_file(image: Path, name: str) -> list[Area]:
    """Where a file's content lies on the disk, as runs of blocks, ascending."""
    output = _tool(system_program("debugfs"), "-R", f"blocks {name}", str(image), quiet=True)
    numbers = sorted(int(word) for word in output.split())
    areas: list[Area] = []
    for number in numbers:
        start = number * BLOCK_BYTES
        if areas and areas[-1].start + areas[-1].length == start:
            areas[-1] = Area(areas[-1].start, areas[-1].length + BLOCK_BYTES)
        else:
            areas.append(Area(start, BLOCK_BYTES))
    return areas


def file_content(image: Path, name: str, into: Path) -> bytes:
    """A file of the file system in the image, read by debugfs through a file at `into`."""
    _tool(system_program("debugfs"), "-R", f"dump {name} {into}", str(image), quiet=True)
    return into.read_bytes()


def file_system_is_clean(image: Path) -> bool:
    """What `e2fsck -fn` says: every structure checked, nothing written."""
    done = subprocess.run(
        [system_program("e2fsck"), "-f", "-n", str(image)],
        capture_output=True,
        timeout=TOOL_TIMEOUT_S,
    )
    return done.returncode == 0


def _tool(*command: str, quiet: bool = False) -> str:
    """Run a program and return what it said; its errors are said too unless `quiet`."""
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=TOOL_TIMEOUT_S
    )
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr.strip()}")
    return done.stdout if quiet else done.stdout + done.stderr
