"""Trying a repository's folder: a quick look, and a test that writes and reads back.

Both may hang with the file system under the folder: call them in a thread that
nobody has to wait for (hub/jobs/folder_calls.py).
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from hub.repository.errors import RepositoryUnusable
from hub.repository.facts import Space
from hub.repository.file_calls import file_calls
from hub.repository.files import sync_folder
from hub.repository.mark import read_mark
from hub.repository.paths import PARTIAL_SUFFIX, PROBE_PREFIX
from hub.repository.reserve import RESERVE_BYTES
from sendense.qcow2_placement import write_all
from shared.errors import SendenseError

# In the order in which they are made.
CHECKS: Final = ("mark", "space", "write", "read", "remove")
PROBE_BYTES: Final = 1 << 20
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_SEE_LOG: Final = "check its disk or mount; the system's log may tell more"
_ADVICE: Final = {
    errno.ENOSPC: "make room on its file system",
    errno.EDQUOT: "make room, or raise the quota of the hub's user",
    errno.EROFS: "mount it writable; after errors, the system may have made it read-only",
    errno.EACCES: "let the hub's user write to the folder",
    errno.EPERM: "let the hub's user write to the folder",
    errno.ESTALE: "mount it again",
    errno.ENOENT: "mount it again",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried; `message` says what was found, or what to do."""

    name: str
    passed: bool
    message: str


class _Failed(Exception):
    """What a check found, in words."""


def look(folder: Path, repository_id: str) -> Space:
    """Whether a repository's folder is there and may be written to; its room. Writes nothing.

    Raises RepositoryUnusable.
    """
    read_mark(folder, repository_id)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise RepositoryUnusable(
            str(folder), "the hub may not write to it: is it mounted read-only, or someone else's?"
        )
    try:
        return room(folder)
    except OSError as error:
        raise RepositoryUnusable(str(folder), error.strerror or str(error)) from error


def room(folder: Path) -> Space:
    """Room of the folder's file system. Raises OSError."""
    found = os.statvfs(folder)
    return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def size(length_bytes: int) -> str:
    """ "0 bytes", "1 MiB", "54.7 GiB", "1023 GiB": the unit that makes it a short number."""
    value, unit = float(length_bytes), 0
    while round(value) >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    told = f"{value:.0f}" if value >= 99.95 else f"{value:.1f}".removesuffix(".0")
    return f"{told} {_UNITS[unit]}"


def checks(folder: Path, repository_id: str) -> Iterator[Check]:
    """Try the folder, check by check; what makes no sense after a failure is left out.

    The probe's name is one that the hub's start-up takes for a leftover. Raises
    nothing that is of the folder.
    """
    mark = _checked("mark", lambda: _mark(folder, repository_id))
    yield mark
    if not mark.passed:
        return  # nothing is written to a folder that may be someone else's
    yield _checked("space", lambda: _space(folder))
    probe = folder / f"{PROBE_PREFIX}{uuid4().hex}{PARTIAL_SUFFIX}"
    content = os.urandom(PROBE_BYTES)
    written = _checked("write", lambda: _write(probe, content))
    yield written
    if not written.passed:
        with suppress(OSError):
            file_calls().unlink(probe)
        return
    yield _checked("read", lambda: _read(probe, content))
    yield _checked("remove", lambda: _remove(probe))


def _checked(name: str, work: Callable[[], str]) -> Check:
    try:
        return Check(name, True, work())
    except _Failed as failed:
        return Check(name, False, str(failed))
    except SendenseError as error:
        return Check(name, False, str(error))
    except OSError as error:
        what = error.strerror or str(error)
        return Check(name, False, f"{what}: {_ADVICE.get(error.errno or 0, _SEE_LOG)}")


def _mark(folder: Path, repository_id: str) -> str:
    read_mark(folder, repository_id)
    return f"{folder} is the folder of {repository_id}"


def _space(folder: Path) -> str:
    found = room(folder)
    if found.total_bytes == 0:
        return "the file system does not tell its size"
    told = f"{size(found.free_bytes)} of {size(found.total_bytes)} are free"
    if found.free_bytes < RESERVE_BYTES:
        raise _Failed(f"{told}: make room, a backup needs more")
    return told


def _write(probe: Path, content: bytes) -> str:
    calls = file_calls()
    fd = calls.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
    try:
        write_all(fd, [content], 0, calls.pwritev)
        calls.fsync(fd)
    finally:
        calls.close(fd)
    sync_folder(probe.parent)
    return f"{size(len(content))} written and synced"


def _read(probe: Path, content: bytes) -> str:
    with probe.open("rb", buffering=0) as file:
        # From the disk, not from memory, where the system can drop what it has there.
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        found = b""
        while len(found) <= len(content) and (more := file.read(len(content) + 1)):
            found += more
    if found != content:
        raise _Failed(
            "other bytes were read than were written: store nothing there; "
            "check its disk and the machine's memory"
        )
    return "the same bytes were read back"


def _remove(probe: Path) -> str:
    file_calls().unlink(probe)
    sync_folder(probe.parent)
    return "the probe was removed"
