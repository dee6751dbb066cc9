"""What the hub's last run left in a repository, and which of it may go.

A job's `job.json` is written when all its layers are sealed: a folder that has one
may be a restore point, whatever an older copy of the catalog says of the job. Of
such a folder nothing is removed here.
"""

import errno
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from hub.repository.errors import os_errors_of
from hub.repository.file_calls import file_calls
from hub.repository.files import sync_folder, unlink_if_there
from hub.repository.journal import has_trailer
from hub.repository.paths import (
    JOB_FACTS,
    LAYER_SUFFIX,
    MANIFEST_SUFFIX,
    OF_THE_FILE_SYSTEM,
    PARTIAL_SUFFIX,
    PROBE_PREFIX,
    REPOSITORY_FACTS,
)
from hub.repository.removal import remove_folder
from shared.errors import SendenseError

# What is written into the repository's folder itself begins with one of these.
_OWN_NAMES: Final = (REPOSITORY_FACTS, PROBE_PREFIX)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KnownJobs:
    """What the catalog says of a repository's folders.

    `contexts` None: all folders are contexts. Otherwise nothing is touched in the
    others: a repository may have been another system's, with names of its own.
    """

    completed: Collection[str] = ()
    unsuccessful: Collection[str] = ()
    live: Collection[str] = ()  # they go on: their files stay as they are
    contexts: Collection[str] | None = None


@dataclass
class Leftovers:
    """One sweep of a repository. `stop` ends it after the system call that it is in.

    What is removed was found before `stop`: jobs that begin after it are safe.
    """

    root: Path
    known: KnownJobs
    removed: list[str] = field(default_factory=list)  # relative paths
    stopped: Callable[[], bool] = lambda: False

    def remove(self) -> None:
        """Remove the folders of unsuccessful jobs; of unknown ones, partial files, manifests
        of layers that were never sealed, and folders that are empty then.

        A missing layer of a restore point is logged, and so is a folder that
        cannot be read, and one of an unsuccessful job that may be a restore point.
        Raises RepositoryUnusable, LayerWriteFailed.
        """
        with os_errors_of(self.root):
            entries = sorted(self.root.iterdir())
            if self.stopped():
                return
            for path in entries:
                if path.name.startswith(_OWN_NAMES) and _is_leftover(path):
                    unlink_if_there(path)
                    self.removed.append(path.name)
            folders = [each for context in self._contexts() for each in self._jobs(context)]
        for folder in folders:
            if self.stopped():
                return
            try:
                self._sweep(folder)
            except (OSError, SendenseError) as error:
                _log.warning("folder_not_swept", folder=str(folder), error=str(error))

    def _contexts(self) -> list[Path]:
        contexts = self.known.contexts
        return [
            folder
            for folder in _folders(self.root)
            if folder.name not in OF_THE_FILE_SYSTEM
            and (contexts is None or folder.name in contexts)
        ]

    def _jobs(self, context: Path) -> list[Path]:
        try:
            return _folders(context)
        except OSError as error:
            _log.warning("folder_not_swept", folder=str(context), error=str(error))
            return []

    def _sweep(self, folder: Path) -> None:
        if folder.name in self.known.live:
            return
        if folder.name in self.known.completed:
            _report_missing(self.root, folder)
        elif os.path.lexists(folder / JOB_FACTS):
            if folder.name in self.known.unsuccessful:
                _report_kept(folder)
        elif folder.name in self.known.unsuccessful:
            self._remove_folder(folder)
        else:
            self._remove_leftovers(folder)

    def _remove_folder(self, folder: Path) -> None:
        relative = str(folder.relative_to(self.root))
        if self.stopped():
            return
        remove_folder(self.root, relative)
        self.removed.append(relative)
        remove_if_empty(folder.parent)

    def _remove_leftovers(self, folder: Path) -> None:
        leftovers = [path for path in sorted(folder.iterdir()) if _is_leftover(path)]
        if self.stopped():
            return
        for path in leftovers:
            unlink_if_there(path)
            self.removed.append(str(path.relative_to(self.root)))
        if leftovers:
            sync_folder(folder)
        remove_if_empty(folder)
        remove_if_empty(folder.parent)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder durably; one with something in it stays. Raises OSError."""
    try:
        file_calls().rmdir(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
    else:
        sync_folder(folder.parent)


def _report_missing(root: Path, folder: Path) -> None:
    for path in sorted(folder.glob(f"*{MANIFEST_SUFFIX}")):
        layer = path.with_suffix(LAYER_SUFFIX)
        if not layer.exists():
            _log.error("layer_missing", layer=str(layer.relative_to(root)))


def _report_kept(folder: Path) -> None:
    _log.error(
        "job_files_kept",
        job_id=folder.name,
        folder=str(folder),
        problem=f"the catalog has no restore point of this job, but its {JOB_FACTS} says that "
        "all its layers were stored: the catalog may be an older copy, and newer backups may "
        "build on these layers",
        to_do="stop the hub and put a newer copy of the catalog back; if neither this backup "
        f"nor a newer one of its VM is needed: sendense job delete {folder.name}",
    )


def _is_leftover(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    if path.name.endswith(PARTIAL_SUFFIX):
        return True
    if path.suffix != MANIFEST_SUFFIX or path.with_suffix(LAYER_SUFFIX).exists():
        return False
    # Sealing ends with the rename of the layer. A whole manifest with neither
    # the layer nor its partial beside it was sealed, and somebody took the layer.
    partial = path.with_suffix(LAYER_SUFFIX + PARTIAL_SUFFIX)
    return partial.exists() or not has_trailer(path)


def _folders(path: Path) -> list[Path]:
    return [each for each in sorted(path.iterdir()) if each.is_dir() and not each.is_symlink()]
