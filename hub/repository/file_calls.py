"""The system calls by which the hub changes a repository: the one place where they are made.

Tests put another object in their place (`replaced`): one that records them, or fails
the nth. Reading goes past it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class FileCalls:
    """What the operating system does. The methods raise OSError, as the calls of `os` they name."""

    def open(self, path: Path | str, flags: int, mode: int = 0o640) -> int:
        return os.open(path, flags, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        return os.pwritev(fd, buffers, offset)

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def fchmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        path.mkdir(mode)

    def unlink(self, path: Path | str, *, dir_fd: int | None = None) -> None:
        os.unlink(path, dir_fd=dir_fd)

    def rmdir(self, path: Path | str, *, dir_fd: int | None = None) -> None:
        os.rmdir(path, dir_fd=dir_fd)

    def free_bytes(self, path: Path | str) -> int | None:
        """Bytes that the hub may still write to the file system of `path`; None: it does not tell."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize if found.f_blocks else None


_calls = FileCalls()


def file_calls() -> FileCalls:
    """The calls as they are made now."""
    return _calls


@contextmanager
def replaced(calls: FileCalls) -> Iterator[None]:
    """Make these calls instead, in all threads. For tests."""
    global _calls
    before, _calls = _calls, calls
    try:
        yield
    finally:
        _calls = before
