"""The layers of old backups: found, examined, and linked by the backing files that they name."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hub.legacy.errors import ImageUnfit
from hub.legacy.grouping import Grouping, OldBackup
from hub.legacy.images import ImageFacts, check_structure, read_facts
from hub.legacy.old_catalog import LeftOut, OldCatalog, OldDisk
from hub.legacy.old_rows import COMPLETED, FULL, INCREMENTAL
from hub.legacy.places import NoPlace, Place, find_file
from hub.legacy.problems import Problem

GIB: Final = 1 << 30
_GB: Final = 10**9


@dataclass(frozen=True, slots=True)
class OldLayer:
    """The file of one disk of an old backup, examined; `base` is what it builds on."""

    disk: OldDisk
    place: Place
    file: Path
    facts: ImageFacts
    note: str
    base: OldDisk | None

    @property
    def backup_type(self) -> str:
        return FULL if self.base is None else INCREMENTAL


@dataclass(frozen=True, slots=True)
class Examined:
    """A backup's layers by disk index, or what is wrong with one of them."""

    backup: OldBackup
    layers: tuple[OldLayer, ...]
    problem: Problem | None = None


def examine(
    catalog: OldCatalog,
    grouping: Grouping,
    places: Mapping[str, Place | NoPlace],
    on_file: Callable[[int, int], None],
) -> tuple[list[Examined], list[LeftOut]]:
    """Look at the files of all backups; and at those of rows that were left out before.

    Their reasons are completed: what is wrong with a file is to be known before the
    catalog is mended. `on_file(done, all)` is told of progress. Raises QemuMissing.
    """
    examination = _Examination(catalog, grouping, places, on_file)
    return examination.run(), examination.left_out()


class _Examination:
    def __init__(
        self,
        catalog: OldCatalog,
        grouping: Grouping,
        places: Mapping[str, Place | NoPlace],
        on_file: Callable[[int, int], None],
    ) -> None:
        self._grouping = grouping
        self._places = places
        self._on_file = on_file
        self._done = 0
        self._all = sum(len(backup.disks) for backup in grouping.backups)
        self._all += sum(_may_be_layer(row) for row in grouping.left_out)
        # Of every row, also of those left out: what builds on one is told so.
        self._disks_of: dict[Path, list[OldDisk]] = defaultdict(list)
        self._file_of: dict[str, Path] = {}
        for disk in catalog.disks:
            place = places.get(disk.vm.repository_id)
            if not isinstance(place, Place):
                continue
            try:
                file = find_file(disk, place)
            except ImageUnfit:
                continue
            self._disks_of[file].append(disk)
            self._file_of[disk.legacy_id] = file
        self._users = self._users_of_files()

    def run(self) -> list[Examined]:
        return [self._examined(backup) for backup in self._grouping.backups]

    def left_out(self) -> list[LeftOut]:
        return [self._completed(row) for row in self._grouping.left_out]

    def _completed(self, row: LeftOut) -> LeftOut:
        if not _may_be_layer(row) or row.disk is None:
            return row
        place = self._places.get(row.disk.vm.repository_id)
        try:
            if isinstance(place, Place):
                self._found(row.disk, place)
        except ImageUnfit as error:
            return replace(row, reason=f"{row.reason}; besides, {error}")
        finally:
            self._count(1)
        return row

    def _users_of_files(self) -> dict[tuple[int, int], list[OldDisk]]:
        """The disks of backups by the very file that they name, under whatever name."""
        users: dict[tuple[int, int], list[OldDisk]] = defaultdict(list)
        for backup in self._grouping.backups:
            for disk in backup.disks:
                file = self._file_of.get(disk.legacy_id)
                if file is not None and (identity := _identity(file)) is not None:
                    users[identity].append(disk)
        return users

    def _examined(self, backup: OldBackup) -> Examined:
        place = self._places[backup.vm.repository_id]
        if isinstance(place, NoPlace):
            self._count(len(backup.disks))
            return Examined(backup, (), Problem(place.problem))
        layers: list[OldLayer] = []
        problem: Problem | None = None
        for disk in backup.disks:
            try:
                layers.append(self._layer(disk, place))
            except ImageUnfit as error:
                problem = problem or Problem(str(error), disk)
            self._count(1)
        return Examined(backup, tuple(layers), problem)

    def _count(self, files: int) -> None:
        self._done += files
        self._on_file(self._done, self._all)

    def _layer(self, disk: OldDisk, place: Place) -> OldLayer:
        """Raises ImageUnfit, with the file's path, when it cannot be a layer of the disk."""
        file = find_file(disk, place)
        identity = _identity(file)
        others = (
            [each for each in self._users.get(identity, ()) if each is not disk] if identity else []
        )
        if others:
            raise ImageUnfit(f"{file}: is the file of {others[0].refs[0]}, too")
        file, facts, base = self._found(disk, place)
        try:
            note = check_structure(file)
        except ImageUnfit as error:
            raise ImageUnfit(f"{file}: {error}") from error
        return OldLayer(disk, place, file, facts, note, base)

    def _found(self, disk: OldDisk, place: Place) -> tuple[Path, ImageFacts, OldDisk | None]:
        """The disk's file, what its header says, and what it builds on. Raises ImageUnfit."""
        file = find_file(disk, place)
        try:
            facts = read_facts(file)
            _check_size(disk, facts)
            return file, facts, self._base(disk, facts)
        except ImageUnfit as error:
            raise ImageUnfit(f"{file}: {error}") from error

    def _base(self, disk: OldDisk, facts: ImageFacts) -> OldDisk | None:
        """The disk whose file this one builds on, which must be what was recorded."""
        recorded = self._grouping.chain_parents.get(disk.legacy_id)
        lost = self._grouping.lost_parents.get(disk.legacy_id)
        if facts.backing is None:
            if disk.backup_type == INCREMENTAL:
                raise ImageUnfit("is recorded as an increment, but builds on no file")
            if recorded is not None and disk.row_id and recorded.row_id == disk.parent_id:
                raise ImageUnfit(f"builds on no file, its recorded parent is {recorded.row_id}")
            return None
        if disk.backup_type == FULL:
            raise ImageUnfit(f"is recorded as a full, but builds on {facts.backing}")
        if lost is not None:
            raise ImageUnfit(
                f"builds on {facts.backing}; its backup's parent {lost!r} is not in the old catalog"
            )
        if recorded is not None:
            expected = self._file_of.get(recorded.legacy_id)
            # Without a file the parent is left out, and so is what builds on it.
            if expected is not None and facts.backing != expected:
                raise ImageUnfit(
                    f"builds on {facts.backing}; its recorded parent is {recorded.legacy_id}, "
                    f"whose file is {expected}"
                )
            return recorded
        found = [
            each
            for each in self._disks_of.get(facts.backing, ())
            if each.vm == disk.vm and each.disk_index == disk.disk_index
        ]
        if len(found) != 1:
            raise ImageUnfit(
                f"builds on {facts.backing}, which is no layer of this disk in the old catalog"
            )
        return found[0]


def _may_be_layer(row: LeftOut) -> bool:
    """Whether rows that are left out name a file that should be whole all the same."""
    return row.disk is not None and row.disk.status == COMPLETED and bool(row.disk.path)


def _check_size(disk: OldDisk, facts: ImageFacts) -> None:
    """Raises ImageUnfit when the disk is recorded with another size, however it was rounded."""
    if not disk.size_gb:
        return
    size = facts.capacity_bytes
    rounded = {size // GIB, -(-size // GIB), size // _GB, -(-size // _GB)}
    if disk.size_gb not in rounded:
        raise ImageUnfit(f"is a disk of {size} bytes; {disk.size_gb} GB are recorded")


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
