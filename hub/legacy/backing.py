"""The QCOW2 files of a folder, and what each names as the file that it builds on."""

import errno
import json
import os
import stat
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, Final

from hub.legacy.errors import FolderUnsearchable

# Of every version of the format: magic, version, backing name offset, backing name bytes.
_HEADER: Final = Struct(">4sIQI")
_MAGIC: Final = b"QFI\xfb"
_NAME_LIMIT: Final = 1023
# Gone meanwhile, a link to nowhere or to itself.
_NOTHING_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# What a new file system has in its root; not everybody may look into it.
_OF_THE_FILE_SYSTEM: Final = frozenset({"lost+found"})


@dataclass(frozen=True, slots=True)
class NamedBase:
    """A file, and a path that its header means: absolute, with links resolved."""

    file: Path
    base: Path
    base_is_there: bool


def named_bases(root: Path, skipped: Set[str]) -> list[NamedBase]:
    """Of all QCOW2 files below `root`, whatever they are called; only headers are read.

    `skipped` are folders in `root` itself. Linked folders are not entered. A header
    that cannot be understood names nothing: QEMU could not read the file, either.
    Raises FolderUnsearchable when a folder or file may not be read.
    """
    try:
        root = root.resolve()
        return [
            found for file in _files(root, skipped | _OF_THE_FILE_SYSTEM) for found in _bases(file)
        ]
    except OSError as error:
        raise FolderUnsearchable(str(error)) from error
    except RuntimeError as error:  # a loop of links
        raise FolderUnsearchable(f"{root}: {error}") from error


def _files(root: Path, skipped: Set[str]) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # gone since it was listed
            raise error

    for folder, folders, files in os.walk(root, onerror=fail):
        if folder == str(root):
            folders[:] = [name for name in folders if name not in skipped]
        yield from (Path(folder, name) for name in files)


def _bases(file: Path) -> Iterator[NamedBase]:
    """Raises OSError."""
    try:
        name = _backing_name(file)
        real = file.resolve()
    except RuntimeError:
        return
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return
        raise
    if name is None:
        return
    # QEMU goes from the name that the file is opened by.
    folders = dict.fromkeys((file.parent, real.parent))
    for each in _paths(name):
        for folder in folders:
            try:
                base = (folder / each).resolve()
            except (RuntimeError, ValueError):
                continue
            yield NamedBase(real, base, os.path.exists(base))  # noqa: PTH110 - False if it may not be seen


def _backing_name(file: Path) -> bytes | None:
    """Raises OSError."""
    if not stat.S_ISREG(file.stat().st_mode):
        return None
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        start = os.pread(fd, _HEADER.size, 0)
        if len(start) < _HEADER.size:
            return None
        magic, _, offset, length = _HEADER.unpack(start)
        if magic != _MAGIC or not offset or not 0 < length <= _NAME_LIMIT or offset >> 63:
            return None
        name = os.pread(fd, length, offset)
    finally:
        os.close(fd)
    return name if len(name) == length else None


def _paths(name: bytes) -> Sequence[str]:
    """The files that a backing name can mean: a path, `file:PATH`, or a `json:` description."""
    text = os.fsdecode(name)
    if not text.startswith("json:"):
        return [text.removeprefix("file:")]
    try:
        return list(_file_names(json.loads(text.removeprefix("json:"))))
    except (ValueError, RecursionError):
        return []


def _file_names(described: Any) -> Iterator[str]:
    for key, value in described.items() if isinstance(described, dict) else ():
        if isinstance(value, dict):
            yield from _file_names(value)
        # Flat descriptions have keys like "file.filename".
        elif isinstance(value, str) and key.rpartition(".")[2] == "filename":
            yield value.removeprefix("file:")
