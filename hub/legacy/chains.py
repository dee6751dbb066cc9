"""Which old backups can be restore points: each whole, on whole ones below, in the order they build."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hub.legacy.grouping import OldBackup
from hub.legacy.layers import Examined, OldLayer
from hub.legacy.old_catalog import LeftOut, OldVm
from hub.legacy.problems import Problem, left_out


@dataclass(frozen=True, slots=True)
class Restorable:
    """A backup that can be restored, with its layers by disk index."""

    backup: OldBackup
    layers: tuple[OldLayer, ...]

    @property
    def created_at(self) -> datetime:
        """When it was made, as recorded; else as old as its oldest file."""
        times = [layer.disk.times for layer in self.layers]
        if self.backup.job is not None:
            times.insert(0, self.backup.job.times)
        for recorded in (
            [each.created_at for each in times],
            [each.started_at for each in times],
            [each.completed_at for each in times],
        ):
            known = [time for time in recorded if time is not None]
            if known:
                return min(known)
        return min(_modified_at(layer) for layer in self.layers)


def restorable(
    examined: Sequence[Examined],
) -> tuple[dict[OldVm, list[Restorable]], list[LeftOut]]:
    """The backups of each VM in the order of their run, and those left out. Raises nothing."""
    problems = {each.backup.key: each.problem for each in examined if each.problem is not None}
    good = {
        each.backup.key: Restorable(each.backup, each.layers)
        for each in examined
        if each.problem is None
    }
    backup_of = {disk.legacy_id: each.backup.key for each in examined for disk in each.backup.disks}
    _check_bases(good, backup_of, problems)
    _drop_what_builds_on(good, backup_of, problems)
    by_vm: dict[OldVm, list[Restorable]] = defaultdict(list)
    for one in good.values():
        by_vm[one.backup.vm].append(one)
    placed: dict[OldVm, list[Restorable]] = {}
    for vm, backups in by_vm.items():
        ordered = _in_order(backups, backup_of)
        in_order = {one.backup.key for one in ordered}
        for one in backups:
            if one.backup.key not in in_order:
                problems[one.backup.key] = Problem(
                    "its recorded parents and files lead in a circle"
                )
        for key, problem in _gaps(ordered):
            problems[key] = Problem(problem)
        dropped = {one.backup.key: one for one in ordered if one.backup.key not in problems}
        _drop_what_builds_on(dropped, backup_of, problems)
        placed[vm] = [one for one in ordered if one.backup.key in dropped]
    without = [
        row
        for each in examined
        if each.backup.key in problems
        for row in left_out(each.backup.disks, each.backup.key, problems[each.backup.key])
    ]
    return {vm: backups for vm, backups in placed.items() if backups}, without


def _check_bases(
    good: dict[str, Restorable], backup_of: Mapping[str, str], problems: dict[str, Problem]
) -> None:
    """Take out backups whose own layers cannot stand on their bases."""
    layers = {layer.disk.legacy_id: layer for one in good.values() for layer in one.layers}
    for key, one in list(good.items()):
        for layer in one.layers:
            if layer.base is None:
                continue
            below = layers.get(layer.base.legacy_id)
            problem = ""
            if layer.base.legacy_id not in backup_of:
                problem = f"{layer.file} builds on {layer.base.refs[0]}, which is left out"
            elif backup_of[layer.base.legacy_id] == key:
                problem = f"{layer.file} builds on a layer of its own backup"
            elif below is not None and below.facts.capacity_bytes > layer.facts.capacity_bytes:
                problem = (
                    f"{layer.file} is a disk of {layer.facts.capacity_bytes} bytes, smaller than "
                    f"the one it builds on, of {below.facts.capacity_bytes}"
                )
            if problem:
                problems[key] = Problem(problem, layer.disk)
                good.pop(key, None)
                break


def _drop_what_builds_on(
    good: dict[str, Restorable], backup_of: Mapping[str, str], problems: dict[str, Problem]
) -> None:
    """Take out what builds on backups that are not there, however far."""
    above: dict[str, list[str]] = defaultdict(list)
    for key, one in good.items():
        for below in _below(one, backup_of):
            above[below].append(key)
    waiting = [key for key in above if key not in good]
    while waiting:
        gone = waiting.pop()
        for key in above[gone]:
            if good.pop(key, None) is not None:
                problems[key] = Problem(f"it builds on {gone}, which is left out")
                waiting.append(key)


def _below(one: Restorable, backup_of: Mapping[str, str]) -> set[str]:
    return {backup_of[layer.base.legacy_id] for layer in one.layers if layer.base is not None}


def _in_order(backups: Iterable[Restorable], backup_of: Mapping[str, str]) -> list[Restorable]:
    """Each after those it builds on; of those that could be next, the oldest. Circles are left out."""
    by_key = {one.backup.key: one for one in backups}
    waits_for = {key: set(_below(one, backup_of)) for key, one in by_key.items()}
    above: dict[str, list[str]] = defaultdict(list)
    for key, below in waits_for.items():
        for each in below:
            above[each].append(key)
    ready = [(one.created_at, key) for key, one in by_key.items() if not waits_for[key]]
    heapq.heapify(ready)
    ordered: list[Restorable] = []
    while ready:
        _, key = heapq.heappop(ready)
        ordered.append(by_key[key])
        for each in above[key]:
            waits_for[each].discard(key)
            if not waits_for[each]:
                heapq.heappush(ready, (by_key[each].created_at, each))
    return ordered


def _gaps(ordered: Sequence[Restorable]) -> list[tuple[str, str]]:
    """Backups without a disk that the VM has before and after: a row of it is missing."""
    first: dict[int | None, int] = {}
    last: dict[int | None, int] = {}
    for at, one in enumerate(ordered):
        for layer in one.layers:
            first.setdefault(layer.disk.disk_index, at)
            last[layer.disk.disk_index] = at
    found: list[tuple[str, str]] = []
    for at, one in enumerate(ordered):
        present = {layer.disk.disk_index for layer in one.layers}
        missing = sorted(
            str(index)
            for index in first
            if index not in present and first[index] < at < last[index]
        )
        if missing:
            problem = f"it lacks disk {', '.join(missing)}, which backups before and after it have"
            found.append((one.backup.key, problem))
    return found


def _modified_at(layer: OldLayer) -> datetime:
    try:
        return datetime.fromtimestamp(layer.file.stat().st_mtime, UTC)
    except (OSError, OverflowError, ValueError):
        return datetime.fromtimestamp(0, UTC)
