"""The two files of a layer that is being written: made or reopened, shared by threads, ended."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from threading import Lock
from typing import Self

import structlog

from hub.repository.errors import LayerInUse, LayerWriteFailed, os_errors_of
from hub.repository.file_calls import file_calls
from hub.repository.files import sync_folder, unlink_if_there
from hub.repository.paths import PARTIAL_SUFFIX, manifest_path
from shared.fail_points import fail_point

# Of file systems that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_WRITE = os.O_RDWR | os.O_NOFOLLOW
_log = structlog.get_logger(__name__)


class _State(Enum):
    OPEN = auto()
    SUSPENDED = auto()
    PUBLISHED = auto()
    DISCARDED = auto()


class LayerFiles:
    """`<layer>.partial` and the manifest, open for writing: `create` or `reopen` makes one.

    A descriptor is closed only when no thread is inside `use`: the number of a
    descriptor closed too early may belong to another job's file at once.
    """

    def __init__(self, root: Path, layer: str, flags: int) -> None:
        self.layer = layer
        self.manifest_path = root / manifest_path(layer)
        self._final_path = root / layer
        self._partial_path = root / (layer + PARTIAL_SUFFIX)
        self._lock = Lock()  # guards the state and the users; held for moments only
        self._state = _State.OPEN
        self._users = 0
        self._descriptors: list[int] = []
        self.layer_fd = self._open(self._partial_path, flags)
        try:
            self.manifest_fd = self._open(self.manifest_path, flags)
            self._lock_out_others()
        except BaseException:
            self._close(self._descriptors)
            if flags & os.O_EXCL:  # it was made here, just now
                with suppress(OSError):
                    unlink_if_there(self._partial_path)
            raise

    @classmethod
    def create(cls, root: Path, layer: str) -> Self:
        """Create both files in a folder that exists; nothing is left of them after an error.

        Raises RepositoryFull, RepositoryUnusable, LayerWriteFailed (also when
        there is such a layer already).
        """
        final_path = root / layer
        with os_errors_of(layer):
            if os.path.lexists(final_path):
                raise LayerWriteFailed(layer, "there is a sealed layer of that name")
            files = cls(root, layer, _WRITE | os.O_CREAT | os.O_EXCL)
            try:
                sync_folder(final_path.parent)
            except BaseException:
                files.discard()
                raise
        return files

    @classmethod
    def reopen(cls, root: Path, layer: str) -> Self | None:
        """Open both files as they are; None unless both are there. Raises LayerInUse, OSError."""
        try:
            return cls(root, layer, _WRITE)
        except FileNotFoundError:
            return None

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the descriptors open inside. Raises LayerWriteFailed when they are closed."""
        with self._lock:
            if self._state is not _State.OPEN:
                raise LayerWriteFailed(self.layer, f"it is {self._state.name.lower()} already")
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                unused = self._take_unused()
            self._close(unused)

    def publish(self) -> None:
        """Give the layer its final name, durably; inside `use`. Raises OSError, LayerWriteFailed."""
        with self._lock:
            if self._state is not _State.OPEN:
                raise LayerWriteFailed(self.layer, "it was ended while it was sealed")
            # From here on a discard leaves the files alone: they may be sealed.
            self._state = _State.PUBLISHED
        try:
            file_calls().rename(self._partial_path, self._final_path)
            fail_point("hub.seal.renamed")
            sync_folder(self._final_path.parent)
            fail_point("hub.seal.published")
        except BaseException:
            with self._lock:
                self._state = _State.OPEN
            raise

    def suspend(self) -> None:
        """Close the files, which stay: somebody may reopen them. Never fails."""
        with self._lock:
            if self._state is not _State.OPEN:
                return
            self._state = _State.SUSPENDED
            unused = self._take_unused()
        self._close(unused)

    def discard(self) -> None:
        """Remove the files unless they are published. Never fails: what cannot be removed is logged."""
        with self._lock:
            if self._state is _State.PUBLISHED:
                return
            self._state = _State.DISCARDED
            unused = self._take_unused()
        self._close(unused)
        try:
            # The manifest last: without one, a layer file would look sealed.
            removed = [
                unlink_if_there(path)
                for path in (self._partial_path, self._final_path, self.manifest_path)
            ]
            if any(removed):
                sync_folder(self._final_path.parent)
        except OSError as error:
            _log.warning("layer_not_discarded", layer=self.layer, error=str(error))

    def _open(self, path: Path, flags: int) -> int:
        fd = file_calls().open(path, flags)
        self._descriptors.append(fd)
        return fd

    def _lock_out_others(self) -> None:
        """Until the descriptors are closed. One hub serves from a catalog; should there be two
        for a moment, they do not write into one layer. Raises LayerInUse, OSError."""
        try:
            fcntl.flock(self.manifest_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LayerInUse(self.layer) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    def _take_unused(self) -> list[int]:
        if self._users or self._state is _State.OPEN:
            return []
        unused, self._descriptors = self._descriptors, []
        return unused

    def _close(self, descriptors: list[int]) -> None:
        for fd in descriptors:
            try:
                file_calls().close(fd)
            except OSError as error:
                # What counts was synced before, and the descriptor is gone all the same.
                _log.warning("layer_not_closed", layer=self.layer, error=str(error))
