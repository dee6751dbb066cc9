"""Which disks were one backup: by what is recorded, never by how close in time they are.

The rule, in this order (docs/import.md has it in full):

1. A row that names a parent which is no row of the same disk belongs to that
   parent's backup, and so does the row that is itself named. A row of
   backup_disks belongs to the job it names.
2. Other rows, where the VM only ever had one disk: each is a backup.
3. Where the ids of all other rows tell their backup (`backup-<vm>-<number>-disk<index>`):
   those with the same beginning, if they are all the disks the VM ever had.
4. Where no row has a parent or such an id: by position (positions.py).

Everything else is ambiguous and is left out.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from hub.legacy.old_catalog import LeftOut, OldCatalog, OldDisk, OldVm
from hub.legacy.old_rows import COMPLETED, FULL, UNSUCCESSFUL, OldJobRow
from hub.legacy.positions import NotTold, by_position
from hub.legacy.problems import Problem, left_out


class Grouped(StrEnum):
    """What says that disks belong together."""

    PARENT = "parent"
    ONLY_DISK = "only disk"
    ID = "id"
    POSITION = "position"


@dataclass(frozen=True, slots=True)
class OldBackup:
    """Disks that were backed up together; the key is unique in the old catalog."""

    key: str
    how: Grouped
    vm: OldVm
    disks: tuple[OldDisk, ...]  # by index
    job: OldJobRow | None = None


@dataclass(frozen=True, slots=True)
class Grouping:
    """The backups that could be told, and the rows of the others."""

    backups: Sequence[OldBackup]
    left_out: Sequence[LeftOut]
    # The disk that a disk is recorded to build on, by legacy id.
    chain_parents: Mapping[str, OldDisk]
    # Of disks whose backup builds on one that is not there: its id, by legacy id.
    lost_parents: Mapping[str, str]


def group(catalog: OldCatalog) -> Grouping:
    """Apply the rule. Raises nothing."""
    parents = _Parents(catalog)
    everything: dict[OldVm, list[OldDisk]] = defaultdict(list)
    for disk in catalog.disks:
        everything[disk.vm].append(disk)
    backups = [
        _backup(key, Grouped.PARENT, disks, catalog.jobs.get(key))
        for key, disks in parents.named.items()
    ]
    without: list[LeftOut] = []
    for vm, keyless in sorted(parents.keyless.items()):
        try:
            backups += _without_parents(keyless, everything[vm], parents)
        except NotTold as error:
            for disk in keyless:
                problem = Problem(disk.problem or _untold(disk, parents, str(error)))
                without += left_out([disk], "", problem, unsuccessful=disk.is_unsuccessful)
    good: list[OldBackup] = []
    keys: set[str] = set()
    for backup in backups:
        if backup.key in keys:
            # A VM of that name in another repository, in the same second.
            backup = replace(backup, key=backup.disks[0].legacy_id)
        keys.add(backup.key)
        found = _problem(backup)
        if found is None:
            good.append(backup)
            continue
        states = {disk.status for disk in backup.disks}
        if backup.job is not None:
            states = {backup.job.status}
        unsuccessful = states <= UNSUCCESSFUL
        without += left_out(backup.disks, backup.key, found, unsuccessful=unsuccessful)
    return Grouping(good, without, parents.chain, parents.lost)


class _Parents:
    """What the parent ids mean, told by what they refer to."""

    def __init__(self, catalog: OldCatalog) -> None:
        self.named: dict[str, list[OldDisk]] = defaultdict(list)
        self.keyless: dict[OldVm, list[OldDisk]] = defaultdict(list)
        self.chain: dict[str, OldDisk] = {}
        self.lost: dict[str, str] = {}
        self._catalog = catalog
        self._rows = {disk.row_id: disk for disk in catalog.disks if disk.row_id}
        sharing: dict[tuple[OldVm, str], set[int | None]] = defaultdict(set)
        indexes: dict[OldVm, set[int | None]] = defaultdict(set)
        for disk in catalog.disks:
            indexes[disk.vm].add(disk.disk_index)
            sharing[disk.vm, disk.parent_id].add(disk.disk_index)
        waiting: list[OldDisk] = []
        for disk in catalog.disks:
            parent = self._rows.get(disk.parent_id)
            if disk.job_id:
                self.named[disk.job_id].append(disk)
            elif not disk.parent_id:
                waiting.append(disk)
            elif parent is not None and _same_disk(parent, disk):
                self.chain[disk.legacy_id] = parent
                waiting.append(disk)
            elif (
                parent is not None
                or disk.parent_id in catalog.jobs
                or disk.stem == disk.parent_id
                # An id that no row has: that of a backup without a row of its own, or
                # of an older layer whose row is gone. Only the former is shared by disks.
                or len(sharing[disk.vm, disk.parent_id]) > 1
                or len(indexes[disk.vm]) == 1
            ):
                self.named[disk.parent_id].append(disk)
            else:
                problem = f"its parent {disk.parent_id!r} is not in the old catalog"
                waiting.append(replace(disk, problem=disk.problem or problem))
        for disk in waiting:
            if disk.row_id in self.named:
                # Some versions made the first disk's row the parent of the others.
                self.named[disk.row_id].append(disk)
            elif disk.stem and (disk.stem in self.named or disk.stem in catalog.jobs):
                self.named[disk.stem].append(disk)
            else:
                self.keyless[disk.vm].append(disk)
        for key in list(self.named):
            self._add_chain_of_job(key)

    def _add_chain_of_job(self, key: str) -> None:
        """Where a backup's own row names the backup before it, its disks build on that one's."""
        job = self._catalog.jobs.get(key)
        if job is None or not job.parent_id or key in self._rows:
            return
        before = self.named.get(job.parent_id)
        if before is None and job.parent_id in self._rows:
            before = [self._rows[job.parent_id]]
        for disk in self.named[key]:
            if disk.backup_type == FULL or disk.legacy_id in self.chain:
                continue
            if before is None:
                self.lost[disk.legacy_id] = job.parent_id
                continue
            same = [each for each in before if _same_disk(each, disk)]
            if len(same) == 1:
                self.chain[disk.legacy_id] = same[0]


def _without_parents(
    keyless: Sequence[OldDisk], everything: Sequence[OldDisk], parents: _Parents
) -> list[OldBackup]:
    """The backups of a VM's rows without a parent. Raises NotTold."""
    indexes = {disk.disk_index for disk in everything}
    if None in indexes:
        raise NotTold("a row of the VM has no usable disk index")
    if len(indexes) == 1:
        return [_single(disk, keyless) for disk in keyless]
    if all(disk.stem for disk in keyless):
        by_stem: dict[str, list[OldDisk]] = defaultdict(list)
        for disk in keyless:
            by_stem[disk.stem].append(disk)
        return [
            _backup(stem, Grouped.ID, _whole(disks, indexes, parents), None)
            for stem, disks in by_stem.items()
        ]
    if len(keyless) < len(everything):
        raise NotTold("other rows of the VM name theirs")
    if any(disk.stem for disk in keyless):
        raise NotTold("only some ids tell their backup")
    return [
        _backup(disks[0].legacy_id, Grouped.POSITION, disks, None)
        for disks in by_position(keyless, parents.chain)
    ]


def _single(disk: OldDisk, keyless: Iterable[OldDisk]) -> OldBackup:
    namesakes = sum(each.stem == disk.stem for each in keyless)
    key = disk.stem if disk.stem and namesakes == 1 else disk.legacy_id
    return _backup(key, Grouped.ONLY_DISK, [disk], None)


def _untold(disk: OldDisk, parents: _Parents, why: str) -> str:
    """Why a row's backup is not known: what its own parent says, and what else could have told."""
    parent = "it has no parent"
    if disk.legacy_id in parents.chain:
        parent = f"its parent {disk.parent_id!r} is the layer below it"
    return f"it is not told which backup it belongs to: {parent}, and {why}"


def _whole(disks: Sequence[OldDisk], indexes: set[int | None], parents: _Parents) -> list[OldDisk]:
    """The disks, which have a problem unless they are all that the VM ever had.

    Nothing says that ids with the same beginning are all disks of a backup: a
    version that took the time anew for each disk would give halves of one.
    """
    missing = indexes - {disk.disk_index for disk in disks}
    if not missing:
        return list(disks)
    named = ", ".join(str(index) for index in sorted(missing, key=str))
    why = f"no id with the same beginning is of disk {named}, which the VM has, too"
    return [replace(disk, problem=disk.problem or _untold(disk, parents, why)) for disk in disks]


def _backup(key: str, how: Grouped, disks: Sequence[OldDisk], job: OldJobRow | None) -> OldBackup:
    ordered = sorted(disks, key=lambda disk: (disk.disk_index or 0, disk.legacy_id))
    if job is not None and key in {disk.row_id for disk in disks}:
        job = None  # it is one of the disks
    return OldBackup(key, how, ordered[0].vm, tuple(ordered), job)


def _problem(backup: OldBackup) -> Problem | None:
    """Why a backup is none that could be restored as a whole."""
    first, job = backup.disks[0], backup.job
    if job is None and all(disk.is_unsuccessful for disk in backup.disks):
        return Problem(f"the backup is {first.status}")
    for disk in backup.disks:
        if disk.problem:
            return Problem(disk.problem, disk)
    text = _problem_of_whole(backup)
    if text:
        return Problem(text)
    for disk in backup.disks:
        if disk.status != COMPLETED:
            return Problem(f"it is {disk.status}", disk)
    return None


def _problem_of_whole(backup: OldBackup) -> str:
    """What does not fit together, or ""."""
    first, job = backup.disks[0], backup.job
    for disk in backup.disks:
        if (disk.vm.vm_name, disk.vm.context_id) != (first.vm.vm_name, first.vm.context_id):
            return f"it has disks of several VMs: {first.vm.vm_name}, {disk.vm.vm_name}"
        if disk.vm.repository_id != first.vm.repository_id:
            return (
                "its disks are in several repositories: "
                f"{first.vm.repository_id}, {disk.vm.repository_id}"
            )
    if job is not None:
        if job.problem:
            return f"{job.ref}: {job.problem}"
        if job.vm_name not in ("", first.vm.vm_name):
            return f"its disks are of the VM {first.vm.vm_name}, {job.ref} is of {job.vm_name}"
        if job.repository_id not in ("", first.vm.repository_id):
            return (
                f"its disks are in the repository {first.vm.repository_id}, "
                f"{job.ref} in {job.repository_id}"
            )
        if job.status != COMPLETED:
            return f"the backup is {job.status}"
    for one, other in pairwise(backup.disks):
        if one.disk_index == other.disk_index:
            return f"it has disk {one.disk_index} twice: {one.refs[0]}, {other.refs[0]}"
    return ""


def _same_disk(one: OldDisk, other: OldDisk) -> bool:
    return one.vm == other.vm and one.disk_index == other.disk_index
