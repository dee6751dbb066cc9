"""The file a disk is restored to: a partial file until it is whole, synced and checked.

A crash leaves at worst `<path>.partial`. The final name is given by one rename
(or link) after the data is on stable storage; the folder is synced last.
"""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sendense.errors import TargetExists, TargetUnusable, TargetWriteFailed
from sendense.restore.early_sync import EarlySync

# How a program asks for it; the command says it in its own words.
TO_REPLACE: Final = "pass overwrite=True"
_OPEN_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Target:
    """The partial file between `open` and `close`; without `commit`, `close` removes it.

    `close` removes it also when an interrupt (Ctrl-C) ended `open` at any place.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path.absolute()
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._overwrite = overwrite
        self._opening = False
        self._fd: int | None = None
        self._early: EarlySync | None = None

    @property
    def fd(self) -> int:
        """The open partial file."""
        assert self._fd is not None, "the target is not open"
        return self._fd

    def check(self) -> None:
        """Refuse a target that cannot be used. Raises TargetUnusable, TargetExists."""
        folder = self.path.parent
        if not folder.is_dir():
            raise TargetUnusable(f"folder {folder} does not exist", reason="TARGET_FOLDER_MISSING")
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise TargetUnusable(f"{self.path} cannot be used: {error.strerror}") from error
        if not stat.S_ISREG(mode):
            raise TargetUnusable(
                f"{self.path} is {_kind(mode)}; a disk is restored to a file",
                reason="TARGET_NOT_A_FILE",
            )
        if not self._overwrite:
            raise TargetExists(f"{self.path} exists; {TO_REPLACE} to replace it")

    def check_space(self, needed_bytes: int) -> None:
        """Refuse a disk that cannot fit. Raises TargetUnusable (TARGET_NO_SPACE)."""
        with self.write_errors():
            free_bytes = shutil.disk_usage(self.path.parent).free
        if needed_bytes > free_bytes:
            raise TargetUnusable(
                f"{self.path} needs {needed_bytes} bytes, its file system has {free_bytes} bytes free",
                reason="TARGET_NO_SPACE",
                metadata={"needed_bytes": str(needed_bytes), "free_bytes": str(free_bytes)},
            )

    def open(self) -> None:
        """Make the partial file. Raises TargetUnusable, TargetWriteFailed."""
        self._opening = True
        try:
            self._fd = os.open(self._partial, os.O_CREAT | _OPEN_FLAGS, 0o666)
        except OSError as error:
            raise TargetUnusable(f"{self._partial} cannot be created: {error.strerror}") from error
        self._claim(self._fd)
        self._early = EarlySync(self._fd)

    def close(self) -> None:
        """Remove the partial file, unless it was committed or is another restore's.

        May be called twice.
        """
        if not self._opening:
            return
        fd = self._fd
        with suppress(OSError):
            if fd is None:
                # Interrupted between the file's creation and knowing its number.
                fd = os.open(self._partial, _OPEN_FLAGS)
            if self._lock(fd):
                self._partial.unlink()
        self._opening, self._fd = False, None
        if self._early is not None:
            self._early.close()
        if fd is not None:
            os.close(fd)

    def resize(self, length_bytes: int) -> None:
        """Give the file its size; what is not written reads as zeros. Raises TargetWriteFailed."""
        with self.write_errors():
            os.ftruncate(self.fd, length_bytes)

    def write(self, offset: int, parts: list[bytes]) -> None:
        """Write `parts` one after the other from `offset`. Raises TargetWriteFailed."""
        with self.write_errors():
            wanted = sum(map(len, parts))
            written = os.pwritev(self.fd, parts, offset)
            rest = memoryview(b"".join(parts))[written:] if written < wanted else None
            while rest:
                written = os.pwrite(self.fd, rest, offset + wanted - len(rest))
                if written == 0:
                    raise OSError(errno.EIO, "nothing was written")
                rest = rest[written:]
            self._early_sync.written(wanted)

    def written(self, length_bytes: int) -> None:
        """Somebody else wrote so many bytes to `fd`. Raises TargetWriteFailed."""
        with self.write_errors():
            self._early_sync.written(length_bytes)

    def commit(self) -> None:
        """Sync the data, give the file its name, sync the folder.

        Raises TargetWriteFailed, TargetExists (someone made the file meanwhile).
        """
        with self.write_errors():
            self._early_sync.finish()
            self._rename()
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self.close()

    @contextmanager
    def write_errors(self) -> Iterator[None]:
        """Translate OSError raised inside into TargetWriteFailed."""
        try:
            yield
        except OSError as error:
            raise TargetWriteFailed(
                f"{self.path} could not be written: {error.strerror or error}",
                metadata={"errno": errno.errorcode.get(error.errno or 0, "")},
            ) from error

    @property
    def _early_sync(self) -> EarlySync:
        assert self._early is not None, "the target is not open"
        return self._early

    def _claim(self, fd: int) -> None:
        """Make the partial file ours and empty; another restore's is left alone."""
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise TargetUnusable(f"{self._partial} is not a file", reason="TARGET_NOT_A_FILE")
        try:
            ours = self._lock(fd)
        except OSError as error:
            raise TargetUnusable(f"{self._partial} cannot be locked: {error.strerror}") from error
        if not ours:
            raise TargetUnusable(
                f"another restore is writing {self._partial}", reason="TARGET_BUSY"
            )
        with self.write_errors():
            os.ftruncate(fd, 0)

    def _lock(self, fd: int) -> bool:
        """Whether the open file is now ours alone, and still is the partial file."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one who held the lock may have given this very file its final name.
            opened = os.fstat(fd)
            return stat.S_ISREG(opened.st_mode) and os.path.samestat(
                opened, os.lstat(self._partial)
            )
        except (BlockingIOError, FileNotFoundError):
            return False

    def _rename(self) -> None:
        if self._overwrite:
            self._partial.replace(self.path)
            return
        try:
            # Unlike a rename, a link refuses a name that someone took meanwhile.
            os.link(self._partial, self.path)
        except FileExistsError as error:
            raise TargetExists(f"{self.path} was made by someone else meanwhile") from error
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            # A file system without links (FAT, some network ones).
            if self.path.exists():
                raise TargetExists(f"{self.path} was made by someone else meanwhile") from error
            self._partial.rename(self.path)
            return
        self._partial.unlink()


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISBLK(mode):
        return "a block device"
    return "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
