"""System calls on the repository: durable folders and small files, shared reading."""

import errno
import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final
from uuid import uuid4

from hub.repository.errors import LayerDamaged
from hub.repository.file_calls import file_calls
from hub.repository.paths import PARTIAL_SUFFIX, PROBE_PREFIX
from sendense.qcow2_placement import write_all

_FOLDER_ATTEMPTS: Final = 100
_NO_NAMELESS: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def sync_folder(path: Path) -> None:
    """Bring a folder's entries to stable storage. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_open_folder(fd)
    finally:
        os.close(fd)


def sync_open_folder(fd: int) -> None:
    """`sync_folder` by a descriptor. Raises OSError."""
    try:
        file_calls().fsync(fd)
    except OSError as error:
        # Some network file systems cannot sync folders, and need not.
        if error.errno != errno.EINVAL:
            raise


def make_folders(root: Path, relative: str) -> Path:
    """Make the folders below `root`, durably; existing ones are fine. Raises OSError.

    The parent is synced even if the folder was there: whoever made it may not
    have come to its sync yet. Somebody may remove the outer folder, empty as it
    still is, before the inner one is made: then begin again.
    """
    for attempts_left in reversed(range(_FOLDER_ATTEMPTS)):
        folder = root
        try:
            for name in relative.split("/"):
                parent, folder = folder, folder / name
                _make_folder(folder)
                sync_folder(parent)
            break
        except (FileNotFoundError, FileExistsError):  # the latter: removed before mkdir looked
            if attempts_left == 0 or not root.is_dir():
                raise
    return folder


def write_file_durably(path: Path, content: bytes) -> None:
    """Replace a small file: the old or the new content survives a crash, nothing between."""
    partial = _written_beside(path, content)
    try:
        file_calls().rename(partial, path)
    except BaseException:
        _unlink_quietly(partial)
        raise
    sync_folder(path.parent)


def create_file_durably(path: Path, content: bytes) -> bool:
    """Write a small file that is not there, whole or not at all. False when it is there."""
    partial = _written_beside(path, content)
    made = True
    try:
        file_calls().link(partial, path)
    except FileExistsError:
        made = False
    except OSError as error:
        if error.errno not in _NO_LINKS or path.exists():
            raise
        # The file system has no links: the next best.
        file_calls().rename(partial, path)
    finally:
        _unlink_quietly(partial)
    sync_folder(path.parent)
    return made


def _make_folder(path: Path) -> None:
    try:
        file_calls().mkdir(path)
    except FileExistsError:
        if not path.is_dir():
            raise


def _written_beside(path: Path, content: bytes) -> Path:
    """A new partial file with that content, synced. Nothing is left after an error."""
    calls = file_calls()
    partial = path.with_name(f"{path.name}{uuid4().hex[:12]}{PARTIAL_SUFFIX}")
    fd = calls.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            write_all(fd, [content], 0, calls.pwritev)
            calls.fchmod(fd, 0o640)
            calls.fsync(fd)
        finally:
            calls.close(fd)
    except BaseException:
        _unlink_quietly(partial)
        raise
    return partial


def write_probe(folder: Path) -> None:
    """Try whether a small file can be written and synced; nothing of it stays. Raises OSError."""
    calls = file_calls()
    fd = _open_nameless(folder)
    try:
        write_all(fd, [b"sendense\n"], 0, calls.pwritev)
        calls.fsync(fd)
    finally:
        calls.close(fd)


def _open_nameless(folder: Path) -> int:
    """A new file that is gone when it is closed, whatever happens before. Raises OSError."""
    calls = file_calls()
    try:
        return calls.open(folder, os.O_WRONLY | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in _NO_NAMELESS:
            raise
    # The file system has no such files: the next best.
    path = folder / f"{PROBE_PREFIX}{uuid4().hex}{PARTIAL_SUFFIX}"
    fd = calls.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        calls.unlink(path)
    except BaseException:
        calls.close(fd)
        raise
    return fd


def _unlink_quietly(path: Path) -> None:
    """What cannot be removed is a leftover: the hub's next start removes it."""
    with suppress(OSError):
        file_calls().unlink(path)


class Descriptors:
    """Open files of a repository for reading: the last used stay open, up to a limit.

    A chain of hundreds of layers must not use up the process's descriptors. One
    thread uses it.
    """

    def __init__(self, root: Path, limit: int = 64) -> None:
        self._root = root
        self._limit = limit
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> "Descriptors":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def size(self, path: str) -> int:
        """Bytes of a file. Raises LayerDamaged when there is none."""
        try:
            return os.fstat(self._descriptor(path)).st_size
        except OSError as error:
            raise LayerDamaged(path, error.strerror or str(error)) from error

    def read(self, path: str, length: int, offset: int) -> bytes:
        """Exactly that range of a file. Raises LayerDamaged."""
        try:
            fd = self._descriptor(path)
            data = os.pread(fd, length, offset)
            while len(data) < length:
                more = os.pread(fd, length - len(data), offset + len(data))
                if not more:
                    raise LayerDamaged(path, f"ends before byte {offset + length}")
                data += more
        except OSError as error:
            raise LayerDamaged(path, error.strerror or str(error)) from error
        return data

    def close(self) -> None:
        """Close all; may be called twice."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _descriptor(self, path: str) -> int:
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        fd = os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW)
        self._open[path] = fd
        if len(self._open) > self._limit:
            os.close(self._open.popitem(last=False)[1])
        return fd


def unlink_if_there(path: Path) -> bool:
    """Remove a file. Returns whether there was one. Raises OSError."""
    try:
        file_calls().unlink(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        return False
    return True
