"""An ext4 file system in an image file, and what a guest does to it.

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

    @property
    def end(self) -> int:
        return self.start + self.length


def make_file_system(
    image: Path, *, capacity_bytes: int, files_bytes: int, own_files: dict[str, bytes]
) -> int:
    """Make a sparse image with an ext4 file system full of files; returns their count.

    `own_files` (path and content) and then installed files, together about
    `files_bytes`. The image costs what the files cost: inode tables and journal
    are not written out.
    """
    staging = image.with_name(image.name + ".files")
    shutil.rmtree(staging, ignore_errors=True)
    for name, content in own_files.items():
        path = staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    installed = installed_files(files_bytes - sum(map(len, own_files.values())))
    for number, source in enumerate(installed):
        folder = staging / "srv" / f"{number // 500:02}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / f"{number:05}{source.suffix}")
    with image.open("wb") as file:
        os.ftruncate(file.fileno(), capacity_bytes)
    _tool(
        *("mkfs.ext4", "-q", "-F", "-b", str(BLOCK_BYTES), "-m", "0", "-J", "size=16"),
        *("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-d", str(staging)),
        str(image),
    )
    shutil.rmtree(staging)
    return len(own_files) + len(installed)


def change_files(before: Path, after: Path, commands: Sequence[str]) -> list[Area]:
    """Copy `before` to `after`, run debugfs commands on the copy; the areas that differ then."""
    copy_sparse(before, after)
    script = after.with_name(after.name + ".debugfs")
    script.write_text("".join(f"{command}\n" for command in commands))
    output = _tool("debugfs", "-w", "-f", str(script), str(after))
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
        if areas and start - areas[-1].end <= JOIN_GAP_BYTES:
            areas[-1] = Area(areas[-1].start, end - areas[-1].start)
        else:
            areas.append(Area(start, end - start))
    return areas


def places_of_file(image: Path, name: str) -> list[Area]:
    """Where a file's content lies on the disk, as runs of blocks, ascending.

    Raises RuntimeError when there is no such file.
    """
    words = _tool("debugfs", "-R", f"blocks {name}", str(image), said="output").split()
    areas: list[Area] = []
    for start in sorted(int(word) * BLOCK_BYTES for word in words):
        if areas and areas[-1].end == start:
            areas[-1] = Area(areas[-1].start, areas[-1].length + BLOCK_BYTES)
        else:
            areas.append(Area(start, BLOCK_BYTES))
    if not areas:
        raise RuntimeError(f"no file {name} in {image.name}")
    return areas


def read_file(image: Path, name: str, scratch: Path) -> bytes:
    """A file of the file system in the image, as debugfs reads it; `scratch` is a free path."""
    _tool("debugfs", "-R", f"dump {name} {scratch}", str(image))
    content = scratch.read_bytes()
    scratch.unlink()
    return content


def file_system_is_clean(image: Path) -> bool:
    """What `e2fsck -fn` says: every structure checked, nothing written."""
    done = subprocess.run(
        [system_program("e2fsck"), "-f", "-n", str(image)],
        capture_output=True,
        timeout=TOOL_TIMEOUT_S,
    )
    return done.returncode == 0


def _tool(program: str, *arguments: str, said: str = "all") -> str:
    """Run a program; returns its output, with its errors unless only the "output" is wanted."""
    done = subprocess.run(
        [system_program(program), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TOOL_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{program} failed: {done.stderr.strip()}")
    return done.stdout if said == "output" else done.stdout + done.stderr
