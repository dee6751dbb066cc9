"""File calls that fail: the nth of them, in one of the ways in which disks do."""

import errno
import os
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from threading import Lock

from hub.repository.file_calls import FileCalls

_PAGE_BYTES = 4096
# O_TMPFILE has the bit of O_DIRECTORY in it.
_CREATES = os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY


class Fault(StrEnum):
    """What the nth call does."""

    IO_ERROR = "EIO"
    DISK_FULL = "ENOSPC"  # that call; the next ones find room
    QUOTA = "EDQUOT"
    SHORT_WRITE = "short write"  # and no room for the rest
    TORN_SYNC = "torn sync"  # a sync fails, and the last page before it is lost
    READ_ONLY = "EROFS"  # from that call on


class FaultyCalls(FileCalls):
    """Makes the calls but for the nth that the fault can hit, counted from 1.

    `fired` says whether the run came so far. `repair` ends a fault that lasts.
    """

    def __init__(self, fault: Fault, nth: int) -> None:
        self.fired = False
        self._fault = fault
        self._nth = nth
        self._count = 0
        self._lasting: int | None = None  # the errno of all calls now
        self._short: set[str] = set()  # files that take no more bytes
        self._unsynced: dict[str, int] = {}  # where each file was written last
        self._lock = Lock()

    def repair(self) -> None:
        """From now on all calls are made."""
        with self._lock:
            self._lasting, self._nth = None, -1
            self._short.clear()

    def open(self, path: Path | str, flags: int, mode: int = 0o640) -> int:
        if flags & _CREATES:
            self._meet()
        return super().open(path, flags, mode)

    def close(self, fd: int) -> None:
        super().close(fd)

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        name = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
        data = b"".join(buffers)
        with self._lock:
            if name in self._short:
                raise _error(errno.ENOSPC)
            if self._fault is Fault.SHORT_WRITE and self._is_it():
                self._short.add(name)
                data = data[: max(1, len(data) // 2)]
        if self._fault is not Fault.SHORT_WRITE:
            self._meet()
        written = super().pwritev(fd, [data], offset)
        with self._lock:
            self._unsynced[name] = offset + written
        return written

    def ftruncate(self, fd: int, length: int) -> None:
        self._meet()
        super().ftruncate(fd, length)

    def fchmod(self, fd: int, mode: int) -> None:
        self._meet()
        super().fchmod(fd, mode)

    def fdatasync(self, fd: int) -> None:
        self._sync(fd, super().fdatasync)

    def fsync(self, fd: int) -> None:
        self._sync(fd, super().fsync)

    def rename(self, source: Path, target: Path) -> None:
        self._meet()
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._meet()
        super().link(source, target)

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        self._meet()
        super().mkdir(path, mode)

    def unlink(self, path: Path | str, *, dir_fd: int | None = None) -> None:
        self._meet()
        super().unlink(path, dir_fd=dir_fd)

    def rmdir(self, path: Path | str, *, dir_fd: int | None = None) -> None:
        self._meet()
        super().rmdir(path, dir_fd=dir_fd)

    def _sync(self, fd: int, sync: Callable[[int], None]) -> None:
        name = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
        if self._fault is Fault.TORN_SYNC:
            with self._lock:
                torn = self._is_it()
                end = self._unsynced.pop(name, 0)
            if torn:
                if end:
                    start = max(0, end - 1) // _PAGE_BYTES * _PAGE_BYTES
                    os.pwrite(fd, bytes(end - start), start)
                raise _error(errno.EIO)
        else:
            self._meet()
        sync(fd)

    def _meet(self) -> None:
        """Raise what this call meets. Raises OSError."""
        if self._fault in (Fault.SHORT_WRITE, Fault.TORN_SYNC):
            return
        with self._lock:
            if self._lasting is not None:
                raise _error(self._lasting)
            if not self._is_it():
                return
            number = int(getattr(errno, self._fault.value))
            if self._fault is Fault.READ_ONLY:
                self._lasting = number
        raise _error(number)

    def _is_it(self) -> bool:
        self._count += 1
        self.fired = self.fired or self._count == self._nth
        return self._count == self._nth


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
