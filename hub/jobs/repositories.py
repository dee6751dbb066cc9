"""Repository folders by their catalog rows."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

from hub.catalog import repositories as rules
from hub.catalog.models import BackupDisk, BackupRepository, VmBackupContext
from hub.jobs.folder_calls import CHANGE
from hub.jobs.parts import Parts
from hub.repository import LayerBase, LayerIdentity, Repository
from shared.errors import InvalidArgument

NAME: Final = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,64}")
MAX_PATH_CHARS: Final = 1024
# How long a file system is waited for: to be looked at, and to get a folder and its mark.
LOOK_S: Final = 5.0
CREATE_S: Final = 10.0
P = ParamSpec("P")
Answer = TypeVar("Answer")


def open_repository(row: BackupRepository) -> Repository:
    """The folder of a row. Raises RepositoryUnusable."""
    return Repository.open(Path(row.path), repository_id=row.id)


def layer_identity(context: VmBackupContext, row: BackupDisk) -> LayerIdentity:
    """What the layer of a disk is to say of itself."""
    return LayerIdentity(
        context_id=context.context_id,
        job_id=row.backup_job_id,
        disk_index=row.disk_index,
        vm_name=context.vm_name,
        vmware_disk_key=row.vmware_disk_key,
        disk_uuid=row.disk_uuid,
        disk_label=row.label,
        capacity_bytes=row.capacity_bytes,
    )


def layer_base(row: BackupDisk) -> LayerBase:
    """The layer of a completed disk, as an increment's base."""
    return LayerBase(
        path=row.qcow2_path or "",
        job_id=row.backup_job_id,
        disk_index=row.disk_index,
        change_id=row.disk_change_id,
    )


class Attempts(Protocol):
    """Makes a function one that is called again when the catalog could not be used."""

    def __call__(self, work: Callable[P, Answer], /) -> Callable[P, Answer]: ...


def once(work: Callable[P, Answer], /) -> Callable[P, Answer]:
    """Attempts that are one."""
    return work


def create_repository(
    parts: Parts, *, name: str, path: str, default: bool, repeated: Attempts = once
) -> BackupRepository:
    """Make (or adopt) the folder, then record it. Repeat it when it was interrupted.

    `repeated` is how often each transaction is tried. Raises InvalidArgument,
    RepositoryExists, RepositoryUnusable, also for a file system that does not answer.
    """
    if not NAME.fullmatch(name):
        raise InvalidArgument(
            "name", "must be 1 to 64 letters, digits, dots, dashes or underscores"
        )
    if not path.startswith("/") or "\0" in path or len(path) > MAX_PATH_CHARS:
        raise InvalidArgument("path", "must be an absolute path on the hub")
    try:
        folder = str(parts.folders.begin("resolve", path, Path(path).resolve).answer(LOOK_S))
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
        raise InvalidArgument("path", f"cannot be resolved: {error}") from error
    with parts.folders.alone(folder):
        return _create(parts, name=name, folder=folder, default=default, repeated=repeated)


def _create(
    parts: Parts, *, name: str, folder: str, default: bool, repeated: Attempts
) -> BackupRepository:
    now = parts.now()
    # A mark without a row: a creation that was interrupted, or another catalog's.
    identify = partial(Repository.id_in, Path(folder))
    marked = parts.folders.begin("identify", folder, identify).answer(LOOK_S)

    @repeated
    def free_id() -> str:
        with parts.catalog.read() as session:
            rules.require_free(session, name=name, path=folder)
            if marked is not None and rules.is_free_id(session, marked):
                return marked
            return rules.free_repository_id(session, name, now)

    repository_id = free_id()
    make = partial(Repository.create, Path(folder), repository_id=repository_id, name=name)
    parts.folders.begin(CHANGE, folder, make).answer(CREATE_S)
    began = False

    @repeated
    def record() -> BackupRepository:
        nonlocal began
        again, began = began, True
        with parts.catalog.write() as session:
            if again:
                # The answer to a commit may be lost, and the commit done.
                done = rules.recorded(session, repository_id, name=name, path=folder)
                if done is not None:
                    return done
            return rules.add_repository(
                session,
                repository_id=repository_id,
                name=name,
                path=folder,
                default=default,
                now=now,
            )

    return record()
