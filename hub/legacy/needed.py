"""Whether what an import left out still builds on a layer that is to be deleted."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hub.catalog.imported_layers import ImportedLayers
from hub.jobs.parts import Parts
from hub.jobs.repositories import open_repository
from hub.legacy.backing import NamedBase, named_bases
from hub.legacy.errors import FolderUnsearchable, LayerNeeded
from hub.repository import RepositoryUnusable

# One small read a file; a slow share with many files may take its time.
SEARCH_S: Final = 60.0
_SEARCH: Final = "search for what builds on imported layers"


def require_unneeded(parts: Parts, going: ImportedLayers) -> None:
    """Raises LayerNeeded when a file that stays builds on a layer that goes.

    The catalog does not know of such files: rows that were left out have none. Raises
    RepositoryUnusable when the folder cannot be searched, or not in time.
    """
    if not going.jobs:
        return
    if _first_needed(parts, going) is None:
        return
    # The search may have begun for somebody else, before files of theirs were removed.
    needed = _first_needed(parts, going)
    if needed is not None:
        raise needed


def _first_needed(parts: Parts, going: ImportedLayers) -> LayerNeeded | None:
    repository = going.repository

    def search() -> tuple[Path, list[NamedBase]]:
        # Not of an empty mount point: nothing in it would build on anything.
        root = open_repository(repository).path.resolve()
        try:
            return root, named_bases(root, going.own_folders)
        except FolderUnsearchable as error:
            raise RepositoryUnusable(
                repository.path,
                f"it cannot be searched for files that build on imported layers: {error}",
            ) from error

    root, found = parts.folders.begin(_SEARCH, repository.path, search).answer(SEARCH_S)
    for path, file in _needed(going, root, found):
        return LayerNeeded(going.jobs[path], path, str(file))
    return None


def _needed(
    going: ImportedLayers, root: Path, found: Iterable[NamedBase]
) -> Iterable[tuple[str, Path]]:
    """(layer that goes, file that stays) of all that build on one."""
    leaving = {root / path for path in going.leaving}
    layers = {root / path: path for path in going.jobs}
    for one in found:
        if one.file in leaving:
            continue
        if one.base in layers:
            yield layers[one.base], one.file
        elif not one.base_is_there and not one.base.is_relative_to(root):
            # By the path that the folder had before it was mounted here.
            for path in going.jobs:
                if one.base.parts[-path.count("/") - 1 :] == Path(path).parts:
                    yield path, one.file
