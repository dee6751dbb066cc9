"""Where an earlier system's repository is for us, and a layer's file in it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hub.catalog.ids import slug
from hub.legacy.errors import ImageUnfit
from hub.legacy.old_catalog import OldCatalog, OldDisk
from hub.repository import Repository
from shared.errors import ConfigurationError

OPTION: Final = "--repository"
LAYER_SUFFIX: Final = ".qcow2"
# backup_disks.qcow2_path
PATH_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class KnownRepository:
    """A repository of our catalog."""

    repository_id: str
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Place:
    """The folder with an old repository's files; `repository_id` is empty where it is to be made."""

    old_id: str
    repository_id: str
    name: str
    root: Path  # links resolved
    old_root: str  # as the old catalog has it, or empty

    @property
    def is_new(self) -> bool:
        return not self.repository_id


@dataclass(frozen=True, slots=True)
class NoPlace:
    """Why an old repository has none, and what to do."""

    problem: str


def find_places(
    catalog: OldCatalog,
    known: Sequence[KnownRepository],
    chosen: Mapping[str, str],
    id_is_free: Callable[[str], bool],
) -> dict[str, Place | NoPlace]:
    """For each old repository with rows: as chosen, else a known one with its files, else its own folder.

    Raises ConfigurationError for a choice that cannot be followed.
    """
    paths: dict[str, list[str]] = {}
    for disk in catalog.disks:
        if disk.vm.repository_id:
            paths.setdefault(disk.vm.repository_id, []).append(disk.path)
    for old_id in chosen:
        if old_id not in paths:
            raise ConfigurationError(OPTION, f"no row of the old catalog is in {old_id!r}")
    finder = _Finder(catalog, known, id_is_free)
    return {
        old_id: finder.chosen(old_id, chosen[old_id])
        if old_id in chosen
        else finder.default(old_id, found)
        for old_id, found in sorted(paths.items())
    }


class _Finder:
    def __init__(
        self,
        catalog: OldCatalog,
        known: Sequence[KnownRepository],
        id_is_free: Callable[[str], bool],
    ) -> None:
        self._catalog = catalog
        self._known = [
            (repository, root)
            for repository in known
            if (root := _resolved_or_none(repository.path)) is not None
        ]
        self._id_is_free = id_is_free
        self._new: list[Place] = []
        self._names = {repository.name for repository in known}

    def chosen(self, old_id: str, choice: str) -> Place:
        if not choice.startswith("/"):
            for repository, root in self._known:
                if choice in (repository.name, repository.repository_id):
                    return self._existing(old_id, repository, root)
            raise ConfigurationError(
                OPTION,
                f"there is no repository {choice!r}; "
                f"give an absolute path to take a folder over: {OPTION} {old_id}=/PATH",
            )
        place = self._at(old_id, choice)
        if isinstance(place, NoPlace):
            raise ConfigurationError(OPTION, f"{choice}: {place.problem}")
        return place

    def default(self, old_id: str, paths: Iterable[str]) -> Place | NoPlace:
        files = {_resolved_or_none(path) for path in paths if path.startswith("/")} - {None}
        holding = [
            (repository, root)
            for repository, root in self._known
            if any(file is not None and file.is_relative_to(root) for file in files)
        ]
        if len(holding) == 1:
            return self._existing(old_id, *holding[0])
        hint = f"name its repository or folder: {OPTION} {old_id}=NAME_OR_PATH"
        if holding:
            names = ", ".join(sorted(repository.name for repository, _ in holding))
            return NoPlace(f"files of {old_id!r} are in several repositories, {names}; {hint}")
        row = self._catalog.repositories.get(old_id)
        if row is None or not row.path.startswith("/"):
            return NoPlace(f"it is not told where the files of {old_id!r} are; {hint}")
        place = self._at(old_id, row.path)
        return (
            NoPlace(f"{row.path}: {place.problem}; {hint}") if isinstance(place, NoPlace) else place
        )

    def _at(self, old_id: str, path: str) -> Place | NoPlace:
        """A folder: a known repository's, or one to be taken over."""
        root = _resolved_or_none(path)
        if root is None or not root.is_dir():
            return NoPlace("is no folder on this machine")
        for repository, other in self._known:
            if root == other:
                return self._existing(old_id, repository, other)
            if root.is_relative_to(other):
                return NoPlace(f"lies in the repository {repository.name!r}; name that one")
            if other.is_relative_to(root):
                return NoPlace(f"lies around the repository {repository.name!r}")
        for place in self._new:
            if root == place.root:
                return replace(place, old_id=old_id, old_root=self._old_root(old_id))
            if root.is_relative_to(place.root) or place.root.is_relative_to(root):
                return NoPlace(f"lies in or around {place.root}, where another one is to be made")
        if root == Path(root.anchor):
            return NoPlace("is the root of the file system")
        mark = Repository.id_in(root)
        if mark is not None and not self._id_is_free(mark):
            return NoPlace(f"has the mark of the repository {mark!r}, which is elsewhere")
        made = Place(old_id, "", self._free_name(old_id), root, self._old_root(old_id))
        self._new.append(made)
        return made

    def _existing(self, old_id: str, repository: KnownRepository, root: Path) -> Place:
        return Place(
            old_id, repository.repository_id, repository.name, root, self._old_root(old_id)
        )

    def _old_root(self, old_id: str) -> str:
        row = self._catalog.repositories.get(old_id)
        return row.path if row is not None else ""

    def _free_name(self, old_id: str) -> str:
        """For a new repository; the same at every run, until one of that name is there."""
        row = self._catalog.repositories.get(old_id)
        wanted = slug((row.name if row is not None else "") or old_id)[:60]
        name, number = wanted, 2
        while name in self._names:
            name, number = f"{wanted}-{number}", number + 1
        self._names.add(name)
        return name


def find_file(disk: OldDisk, place: Place) -> Path:
    """The disk's layer, links resolved, within the place. Raises ImageUnfit with the path."""
    if not disk.path:
        raise ImageUnfit("its row names no file")
    if "\0" in disk.path or not _is_unicode(disk.path):
        raise ImageUnfit(f"its row names {disk.path!r}, which is no path")
    named = Path(disk.path) if disk.path.startswith("/") else place.root / disk.path
    file = _resolved(named)
    if not file.is_relative_to(place.root) and place.old_root:
        # The folder may be mounted elsewhere than it was.
        old_root = Path(place.old_root)
        if named.is_relative_to(old_root):
            file = _resolved(place.root / named.relative_to(old_root))
    if not file.is_relative_to(place.root):
        raise ImageUnfit(f"{disk.path} lies outside the repository's folder, {place.root}")
    try:
        if file.is_dir():
            file = _resolved(_in_folder(disk, file))
    except OSError as error:
        raise ImageUnfit(f"{file}: {error.strerror}") from error
    if not file.is_relative_to(place.root):
        raise ImageUnfit(f"{disk.path} leads out of the repository's folder, {place.root}")
    relative = str(file.relative_to(place.root))
    if len(relative) > PATH_CHARS or not _is_unicode(relative):
        raise ImageUnfit(f"{disk.path} cannot be recorded: its name is too long or no Unicode")
    return file


def _in_folder(disk: OldDisk, folder: Path) -> Path:
    """Some versions record the folder: the file named after the row or its disk, or the only one."""
    layers = sorted(path for path in folder.iterdir() if path.suffix == LAYER_SUFFIX)
    for names in ({disk.row_id}, {f"disk-{disk.disk_index}", f"disk{disk.disk_index}"}):
        found = [path for path in layers if path.stem in names]
        if len(found) == 1:
            return found[0]
        if found:
            break
    if len(layers) == 1:
        return layers[0]
    raise ImageUnfit(f"{folder} is a folder with {len(layers)} QCOW2 files; none is told to be its")


def _resolved(path: Path) -> Path:
    """Absolute, without links, whether it is there or not."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
        raise ImageUnfit(f"{path}: cannot be resolved: {error}") from error


def _resolved_or_none(path: str) -> Path | None:
    try:
        return _resolved(Path(path))
    except ImageUnfit:
        return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
