"""The mark of a repository's folder: whose it is. Written at its creation, removed with it."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hub.repository.errors import RepositoryUnusable, os_errors_of
from hub.repository.file_calls import file_calls
from hub.repository.files import sync_folder, unlink_if_there, write_file_durably
from hub.repository.paths import (
    OF_THE_FILE_SYSTEM,
    PARTIAL_SUFFIX,
    PROBE_PREFIX,
    REPOSITORY_FACTS,
)

FORMAT: Final = 1
# The folder has more in it, is a mount point, or its parent is not ours to change.
_STAYS: Final = frozenset(
    {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS}
)


def mark_bytes(repository_id: str, name: str) -> bytes:
    """A mark's content. The name is for people; the id is what counts."""
    return facts_bytes({"format": FORMAT, "repository_id": repository_id, "name": name})


def facts_bytes(facts: Mapping[str, object]) -> bytes:
    """Facts as a file's content."""
    return json.dumps(facts, indent=2, sort_keys=True).encode() + b"\n"


def read_mark(folder: Path, repository_id: str) -> dict[str, Any]:
    """The facts in the mark of that repository. Raises RepositoryUnusable without it.

    Asked before anything is written: a mount point without its mount is an empty
    folder too.
    """
    path = folder / REPOSITORY_FACTS
    try:
        facts: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        problem = f"has no {REPOSITORY_FACTS}" if folder.is_dir() else "is no folder"
        raise RepositoryUnusable(str(folder), f"{problem}: is it mounted?") from error
    except OSError as error:
        raise RepositoryUnusable(str(folder), error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise RepositoryUnusable(str(folder), f"{path.name} is not JSON") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise RepositoryUnusable(str(folder), f"{path.name} has an unknown format")
    if facts.get("repository_id") != repository_id:
        raise RepositoryUnusable(
            str(folder), f"belongs to repository {facts.get('repository_id')!r}"
        )
    return facts


def rename_in_mark(folder: Path, repository_id: str, name: str) -> None:
    """Write the repository's new name into its mark, durably. Raises RepositoryUnusable,
    RepositoryFull, LayerWriteFailed; the mark is the old one then."""
    facts = read_mark(folder, repository_id)
    with os_errors_of(folder / REPOSITORY_FACTS):
        write_file_durably(folder / REPOSITORY_FACTS, facts_bytes(facts | {"name": name}))


def remove_mark(folder: Path, repository_id: str) -> bool:
    """Take a deleted repository's mark out of its folder, and remove that if it is empty then.

    True when the folder went. Where anything else is in it the mark stays: another
    hub, or a newer copy of the catalog, may have restore points there, which without
    the mark nobody could use. Raises RepositoryUnusable, also for that, and
    LayerWriteFailed; calling again does the rest.
    """
    read_mark(folder, repository_id)
    with os_errors_of(folder):
        leftovers = [path for path in folder.iterdir() if _is_own_leftover(path)]
        known = {REPOSITORY_FACTS, *OF_THE_FILE_SYSTEM, *(path.name for path in leftovers)}
        others = sorted(path.name for path in folder.iterdir() if path.name not in known)
        if others:
            raise RepositoryUnusable(
                str(folder),
                f"the mark {REPOSITORY_FACTS} stays, for the folder has more in it, such as "
                f"{others[0]!r}: these may be backups that this catalog does not know. To use "
                "them, make the folder a repository again; else remove the mark by hand",
            )
        for path in leftovers:
            unlink_if_there(path)
        file_calls().unlink(folder / REPOSITORY_FACTS)
        sync_folder(folder)
        try:
            file_calls().rmdir(folder)
        except OSError as error:
            if error.errno not in _STAYS:
                raise
            return False
        sync_folder(folder.parent)
    return True


def _is_own_leftover(path: Path) -> bool:
    """Of a mark or a probe that was being written when the hub ended."""
    name = path.name
    return name.startswith((REPOSITORY_FACTS, PROBE_PREFIX)) and name.endswith(PARTIAL_SUFFIX)
