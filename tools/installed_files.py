"""Real data by a fixed rule: files of the installed system, the same ones at every call."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.paths import ROOT

# Roots in order: what `make setup` installed is on every machine, the rest fills up.
ROOTS: Final = (ROOT / ".venv" / "lib", Path("/usr/lib"), Path("/usr/share"), Path("/usr/bin"))
SMALLEST_BYTES: Final = 4 << 10
LARGEST_BYTES: Final = 24 << 20


def installed_files(limit_bytes: int) -> list[Path]:
    """Regular files of 4 KiB to 24 MiB, by root and name, until `limit_bytes` are reached.

    Byte code is left out: it comes and goes. The last file may reach beyond the
    limit. Raises RuntimeError when the system has less.
    """
    chosen, total = [], 0
    for path, size in _candidates():
        chosen.append(path)
        total += size
        if total >= limit_bytes:
            return chosen
    raise RuntimeError(f"the system has {total} bytes of suitable files, {limit_bytes} are needed")


def _candidates() -> Iterator[tuple[Path, int]]:
    for root in ROOTS:
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = sorted(name for name in subfolders if name != "__pycache__")
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
                    continue
                size = path.stat().st_size
                if SMALLEST_BYTES <= size <= LARGEST_BYTES:
                    yield path, size
