"""Backups told by position: the k-th row of each disk, where nothing else is recorded.

That is provable only if each backup left a row of every disk. So every disk must
have as many rows, and the k-th rows the same type and state; each disk's order
must be recorded; and no row of a backup may be older than one of the backup
before it. There is no window of time: how far apart rows are says nothing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from hub.legacy.old_catalog import OldDisk


class NotTold(Exception):
    """Nothing in the rows tells which belong together; the text says what is missing."""


def by_position(
    disks: Sequence[OldDisk], chain_parents: Mapping[str, OldDisk]
) -> list[list[OldDisk]]:
    """The disks of each backup, oldest backup first, by disk index. Raises NotTold."""
    by_index: dict[int, list[OldDisk]] = defaultdict(list)
    for disk in disks:
        by_index[disk.disk_index or 0].append(disk)
    if len({len(rows) for rows in by_index.values()}) > 1:
        counts = ", ".join(f"disk {i}: {len(rows)}" for i, rows in sorted(by_index.items()))
        raise NotTold(f"the disks have different numbers of rows: {counts}")
    columns = [_in_order(rows, chain_parents) for _, rows in sorted(by_index.items())]
    backups = [list(rows) for rows in zip(*columns, strict=True)]
    for rows in backups:
        if len({(row.backup_type, row.status) for row in rows}) > 1:
            raise NotTold(
                "the rows of the disks differ in type or state: "
                + ", ".join(f"{row.row_id} is {row.backup_type} {row.status}" for row in rows)
            )
    for before, after in pairwise(backups):
        _require_later(before, after)
    return backups


def _in_order(rows: Sequence[OldDisk], chain_parents: Mapping[str, OldDisk]) -> list[OldDisk]:
    """One disk's rows, each after the one it builds on. Raises NotTold."""
    if len(rows) == 1:
        return list(rows)
    names = {row.legacy_id for row in rows}
    above: dict[str, list[OldDisk]] = defaultdict(list)
    for row in rows:
        parent = chain_parents.get(row.legacy_id)
        inside = parent is not None and parent.legacy_id in names
        above[parent.legacy_id if parent is not None and inside else ""].append(row)
    chain: list[OldDisk] = []
    at = ""
    while len(above[at]) == 1 and len(chain) < len(rows):
        chain.append(above[at][0])
        at = chain[-1].legacy_id
    if len(chain) == len(rows):
        return chain
    times = _times(rows)
    if len(set(times)) < len(rows):
        raise NotTold("the order of a disk's rows is not recorded")
    ordered = [row for _, row in sorted(zip(times, rows, strict=True), key=lambda pair: pair[0])]
    place = {row.legacy_id: number for number, row in enumerate(ordered)}
    for row in ordered:
        parent = chain_parents.get(row.legacy_id)
        if parent is not None and place.get(parent.legacy_id, -1) >= place[row.legacy_id]:
            raise NotTold(f"{row.row_id} is recorded as older than {parent.row_id}, its parent")
    return ordered


def _require_later(before: Sequence[OldDisk], after: Sequence[OldDisk]) -> None:
    if max(_times(before)) > min(_times(after)):
        raise NotTold("rows of one position are older than some of the one before")


def _times(rows: Sequence[OldDisk]) -> list[datetime]:
    """Of creation, of all rows. Raises NotTold."""
    times = [time for row in rows if (time := row.times.created_at) is not None]
    if len(times) < len(rows):
        raise NotTold("not every row has its time of creation")
    return times
