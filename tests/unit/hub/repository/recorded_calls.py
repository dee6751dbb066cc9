"""The hub's changes of a repository, recorded in order; other moments can be noted between them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

from hub.repository.file_calls import FileCalls


@dataclass(frozen=True, slots=True)
class Call:
    """One change that was made, or a moment that was noted (`name` and `text`)."""

    name: str
    path: Path = Path()
    offset: int = 0  # of a write; the new length of a truncation
    data: bytes = b""
    target: Path = Path()  # of a rename or link
    text: str = ""

    @property
    def kind(self) -> str:
        """Which of the repository's files it is about."""
        name = self.path.name
        if name.endswith((".qcow2", ".qcow2.partial")):
            return "layer"
        if name.endswith(".manifest"):
            return "manifest"
        if name.startswith("job.json"):
            return "facts"
        if name.startswith("sendense-repository.json"):
            return "mark"
        return name


class RecordedCalls(FileCalls):
    """Makes the calls, one after the other, and records those that worked."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._lock = RLock()

    def note(self, name: str, text: str = "") -> None:
        """Something else that happened now."""
        with self._lock:
            self._add(Call(name, text=text))

    def open(self, path: Path | str, flags: int, mode: int = 0o640) -> int:
        with self._lock:
            new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
            fd = super().open(path, flags, mode)
            if new:
                self._record("create", Path(path))
            return fd

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        with self._lock:
            written = super().pwritev(fd, buffers, offset)
            self._record("pwritev", _path_of(fd), offset, b"".join(buffers)[:written])
            return written

    def ftruncate(self, fd: int, length: int) -> None:
        with self._lock:
            super().ftruncate(fd, length)
            self._record("ftruncate", _path_of(fd), length)

    def fdatasync(self, fd: int) -> None:
        with self._lock:
            super().fdatasync(fd)
            self._record("fdatasync", _path_of(fd))

    def fsync(self, fd: int) -> None:
        with self._lock:
            super().fsync(fd)
            self._record("fsync", _path_of(fd))

    def rename(self, source: Path, target: Path) -> None:
        with self._lock:
            super().rename(source, target)
            self._add(Call("rename", source, target=target))

    def link(self, source: Path, target: Path) -> None:
        with self._lock:
            super().link(source, target)
            self._add(Call("link", source, target=target))

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        with self._lock:
            super().mkdir(path, mode)
            self._record("mkdir", path)

    def unlink(self, path: Path | str, *, dir_fd: int | None = None) -> None:
        with self._lock:
            super().unlink(path, dir_fd=dir_fd)
            self._record("unlink", _absolute(path, dir_fd))

    def rmdir(self, path: Path | str, *, dir_fd: int | None = None) -> None:
        with self._lock:
            super().rmdir(path, dir_fd=dir_fd)
            self._record("rmdir", _absolute(path, dir_fd))

    def _record(self, name: str, path: Path, offset: int = 0, data: bytes = b"") -> None:
        self._add(Call(name, path, offset, data))

    def _add(self, call: Call) -> None:
        """Record it; called one after the other."""
        self.calls.append(call)


def _path_of(fd: int) -> Path:
    return Path(str(Path(f"/proc/self/fd/{fd}").readlink()).removesuffix(" (deleted)"))


def _absolute(path: Path | str, dir_fd: int | None) -> Path:
    return Path(path) if dir_fd is None else _path_of(dir_fd) / path
