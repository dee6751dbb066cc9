"""Removing a job's files: within the repository, through no symbolic link, durably.

Every folder on the way is opened without following links, so that nothing but
what lies below the repository's own folder can be meant.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hub.repository.errors import RepositoryUnusable, os_errors_of
from hub.repository.file_calls import file_calls
from hub.repository.files import sync_open_folder
from hub.repository.paths import JOB_FACTS, REPOSITORY_FACTS, component

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_ATTEMPTS: Final = 100


def remove_folder(root: Path, relative: str) -> None:
    """Remove a folder and all in it; one that is not there is fine.

    Raises RepositoryUnusable (also when a link or a file is in its place),
    LayerWriteFailed; what is left can be removed by calling again.
    """
    *above, name = _names(relative)
    with os_errors_of(root / relative), suppress(FileNotFoundError), _opened(root, above) as parent:
        for _ in range(_ATTEMPTS):
            try:
                _require(stat.S_ISDIR, root / relative, name, parent, "is no folder")
                _remove_facts(name, parent)
                _remove_tree(name, parent)
            except FileNotFoundError:
                # Gone, or somebody else is removing it, too: look again.
                if not _exists(name, parent):
                    break
        else:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        # Also when it was gone: whoever removed it may not have come to this.
        sync_open_folder(parent)


def remove_file(root: Path, relative: str) -> None:
    """Remove a file and nothing else; one that is not there is fine.

    Raises RepositoryUnusable (also when it is no regular file), LayerWriteFailed.
    """
    *above, name = _names(relative)
    with os_errors_of(root / relative), suppress(FileNotFoundError), _opened(root, above) as parent:
        with suppress(FileNotFoundError):
            _require(stat.S_ISREG, root / relative, name, parent, "is no regular file")
            file_calls().unlink(name, dir_fd=parent)
        sync_open_folder(parent)


def _names(relative: str) -> list[str]:
    """Raises InvalidArgument for a path that could lead out of the repository."""
    return [component("path", name) for name in relative.split("/")]


@contextmanager
def _opened(root: Path, folders: Sequence[str]) -> Iterator[int]:
    """A descriptor of the innermost folder. Raises OSError, RepositoryUnusable for a link."""
    fd, path = _opened_root(root), root
    try:
        for name in folders:
            path = path / name
            try:
                below = os.open(name, _FOLDER, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise RepositoryUnusable(str(path), "is no folder") from error
                raise
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _opened_root(root: Path) -> int:
    """Of a repository that is there: an empty mount point has none of its files either."""
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.stat(REPOSITORY_FACTS, dir_fd=fd, follow_symlinks=False)
        except BaseException:
            os.close(fd)
            raise
    except FileNotFoundError as error:
        raise RepositoryUnusable(str(root), f"has no {REPOSITORY_FACTS}: is it mounted?") from error
    return fd


def _require(kind: Callable[[int], bool], path: Path, name: str, parent: int, problem: str) -> None:
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        raise RepositoryUnusable(str(path), "is a symbolic link")
    if not kind(mode):
        raise RepositoryUnusable(str(path), problem)


def _exists(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _remove_facts(name: str, parent: int) -> None:
    """The job's facts go first, durably: half a folder must not look like a restore point."""
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        with suppress(FileNotFoundError, IsADirectoryError):
            file_calls().unlink(JOB_FACTS, dir_fd=folder)
            sync_open_folder(folder)
    finally:
        os.close(folder)


def _remove_tree(name: str, parent: int) -> None:
    """Remove a folder with all in it, following no link. Raises OSError."""
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        with os.scandir(folder) as found:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        for entry, is_folder in entries:
            if is_folder:
                _remove_tree(entry, folder)
            else:
                with suppress(FileNotFoundError):
                    file_calls().unlink(entry, dir_fd=folder)
    finally:
        os.close(folder)
    file_calls().rmdir(name, dir_fd=parent)
