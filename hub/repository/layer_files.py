"""The two files of a layer that is being written: made, shared by threads, published or removed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from threading import Lock

import structlog

from hub.repository.errors import LayerWriteFailed, os_errors_of
from hub.repository.files import sync_folder, unlink_if_there
from hub.repository.paths import PARTIAL_SUFFIX, manifest_path

_log = structlog.get_logger(__name__)


class _State(Enum):
    OPEN = auto()
    PUBLISHED = auto()
    DISCARDED = auto()


class LayerFiles:
    """`<layer>.partial` and the manifest, open for writing.

    A descriptor is closed only when no thread is inside `use`: the number of a
    descriptor closed too early may belong to another job's file at once.
    """

    def __init__(self, root: Path, layer: str) -> None:
        """Create both files in a folder that exists; nothing is left of them after an error.

        Raises RepositoryFull, RepositoryUnusable, LayerWriteFailed (also when
        there is such a layer already).
        """
        self.layer = layer
        self.manifest_path = root / manifest_path(layer)
        self._final_path = root / layer
        self._partial_path = root / (layer + PARTIAL_SUFFIX)
        self._lock = Lock()  # guards the state and the users; held for moments only
        self._state = _State.OPEN
        self._users = 0
        with os_errors_of(layer):
            if self._final_path.exists():
                raise LayerWriteFailed(layer, "there is a sealed layer of that name")
            self.layer_fd = _create(self._partial_path)
            try:
                self.manifest_fd = _create(self.manifest_path)
                try:
                    sync_folder(self._final_path.parent)
                except BaseException:
                    os.close(self.manifest_fd)
                    unlink_if_there(self.manifest_path)
                    raise
            except BaseException:
                os.close(self.layer_fd)
                unlink_if_there(self._partial_path)
                raise
        self._descriptors = [self.layer_fd, self.manifest_fd]

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
            _close(unused)

    def publish(self) -> None:
        """Give the layer its final name, durably; inside `use`. Raises OSError, LayerWriteFailed."""
        with self._lock:
            if self._state is not _State.OPEN:
                raise LayerWriteFailed(self.layer, "it was discarded while it was sealed")
            # From here on a discard leaves the files alone: they may be sealed.
            self._state = _State.PUBLISHED
        try:
            self._partial_path.rename(self._final_path)
            sync_folder(self._final_path.parent)
        except BaseException:
            with self._lock:
                self._state = _State.OPEN
            raise

    def discard(self) -> None:
        """Remove the files unless they are published. Never fails: what cannot be removed is logged."""
        with self._lock:
            if self._state is _State.PUBLISHED:
                return
            self._state = _State.DISCARDED
            unused = self._take_unused()
        _close(unused)
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

    def _take_unused(self) -> list[int]:
        if self._users or self._state is _State.OPEN:
            return []
        unused, self._descriptors = self._descriptors, []
        return unused


def _create(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)
