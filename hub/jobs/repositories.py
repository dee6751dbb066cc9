"""Repository folders by their catalog rows."""

import re
from pathlib import Path
from typing import Final

from hub.catalog import repositories as rules
from hub.catalog.models import BackupDisk, BackupRepository
from hub.jobs.parts import Parts
from hub.repository import LayerBase, Repository
from shared.errors import InvalidArgument

NAME: Final = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,64}")
MAX_PATH_CHARS: Final = 1024


def open_repository(row: BackupRepository) -> Repository:
    """The folder of a row. Raises RepositoryUnusable."""
    return Repository.open(Path(row.path), repository_id=row.id)


def layer_base(row: BackupDisk) -> LayerBase:
    """The layer of a completed disk, as an increment's base."""
    return LayerBase(
        path=row.qcow2_path or "",
        job_id=row.backup_job_id,
        disk_index=row.disk_index,
        change_id=row.disk_change_id,
    )


def create_repository(parts: Parts, *, name: str, path: str, default: bool) -> BackupRepository:
    """Make (or adopt) the folder, then record it. Repeat it when it was interrupted.

    Raises InvalidArgument, RepositoryExists, RepositoryUnusable.
    """
    if not NAME.fullmatch(name):
        raise InvalidArgument(
            "name", "must be 1 to 64 letters, digits, dots, dashes or underscores"
        )
    if not path.startswith("/") or "\0" in path or len(path) > MAX_PATH_CHARS:
        raise InvalidArgument("path", "must be an absolute path on the hub")
    try:
        folder = str(Path(path).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
        raise InvalidArgument("path", f"cannot be resolved: {error}") from error
    with parts.folders.alone(folder):
        return _create(parts, name=name, folder=folder, default=default)


def _create(parts: Parts, *, name: str, folder: str, default: bool) -> BackupRepository:
    now = parts.now()
    with parts.catalog.read() as session:
        rules.require_free(session, name=name, path=folder)
        # A mark without a row: a creation that was interrupted, or another catalog's.
        marked = Repository.id_in(Path(folder))
        if marked is not None and rules.is_free_id(session, marked):
            repository_id = marked
        else:
            repository_id = rules.free_repository_id(session, name, now)
    Repository.create(Path(folder), repository_id=repository_id, name=name)
    with parts.catalog.write() as session:
        return rules.add_repository(
            session,
            repository_id=repository_id,
            name=name,
            path=folder,
            default=default,
            now=now,
        )
