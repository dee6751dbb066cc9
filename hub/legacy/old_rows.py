"""Rows of an earlier system's catalog, understood one by one; what is wrong with one is kept with it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from hub.legacy.tables import DISKS, JOBS, Row
from hub.legacy.values import BadValue, moment, number, text

FULL, INCREMENTAL = "full", "incremental"
COMPLETED: Final = "completed"
# Ended without a backup: there is nothing of them to import.
UNSUCCESSFUL: Final = frozenset({"failed", "cancelled", "canceled", "error"})
# A differential builds on an older layer than an increment does: to a reader the same.
_TYPES: Final[Mapping[str, str]] = {
    FULL: FULL,
    INCREMENTAL: INCREMENTAL,
    "differential": INCREMENTAL,
    "": "",
}
_PATH_COLUMNS: Final = ("path", "base_path", "mount_path", "mount_point")
# disk_index is a 32-bit number of ours, too.
_INDEX_LIMIT: Final = (1 << 31) - 1
_KEY_LIMIT: Final = _INDEX_LIMIT
_CHANGE_ID_CHARS: Final = 255
T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class RowRef:
    """A row of the old catalog."""

    table: str
    row_id: str

    def __str__(self) -> str:
        return f"{self.table} {self.row_id}"


@dataclass(frozen=True, slots=True)
class Times:
    """When a row was made, began and ended, as far as it says."""

    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OldJobRow:
    """A row of backup_jobs: one disk of a backup, or, without a disk, the backup."""

    row_id: str
    # Its disk_id is not NULL; `disk_index` is None then where that is no number.
    names_disk: bool
    disk_index: int | None
    vm_name: str
    context_id: str
    repository_id: str
    parent_id: str
    backup_type: str
    status: str
    path: str
    change_id: str
    bytes_transferred: int
    times: Times
    problem: str
    notes: tuple[str, ...]

    @property
    def ref(self) -> RowRef:
        return RowRef(JOBS, self.row_id)


@dataclass(frozen=True, slots=True)
class OldDiskRow:
    """A row of backup_disks."""

    row_id: str
    job_id: str
    context_id: str
    disk_index: int | None
    disk_key: int | None
    size_gb: int | None
    path: str
    change_id: str
    status: str
    bytes_transferred: int
    times: Times
    problem: str
    notes: tuple[str, ...]

    @property
    def ref(self) -> RowRef:
        return RowRef(DISKS, self.row_id)


@dataclass(frozen=True, slots=True)
class OldContextRow:
    """A row of vm_backup_contexts."""

    context_id: str
    vm_name: str
    moref: str
    vcenter_host: str
    repository_id: str
    instance_uuid: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class OldRepositoryRow:
    """A row of the repositories' table; `path` is empty where none was found."""

    repository_id: str
    name: str
    path: str


class _Reader:
    """Takes a row's values; the first that decides something and cannot be read is its problem."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.problem = ""
        self.notes: list[str] = []

    def text(self, column: str) -> str:
        return self._take(text, column, "")

    def number(self, column: str, limit: int | None = None) -> int | None:
        value = self._take(number, column, None)
        if value is not None and limit is not None and value > limit:
            self.problem = self.problem or f"its {column} {value} is too large"
            return None
        return value

    def count(self, column: str) -> int:
        """A number that only tells: 0 when it cannot be read."""
        try:
            return number(self._row, column) or 0
        except BadValue as error:
            self.notes.append(str(error))
            return 0

    def moment(self, column: str) -> datetime | None:
        """A time only tells, too: what belongs together is never read out of it."""
        try:
            return moment(self._row, column)
        except BadValue as error:
            self.notes.append(str(error))
            return None

    def times(self) -> Times:
        return Times(
            self.moment("created_at"), self.moment("started_at"), self.moment("completed_at")
        )

    def status(self, has_status: bool) -> str:
        """In lower case. A table without the column has only what was backed up."""
        if not has_status:
            return COMPLETED
        status = self.text("status").strip().lower()
        if not status:
            self.problem = self.problem or "it has no status"
        return status

    def _take(self, read: Callable[[Mapping[str, Any], str], T], column: str, instead: T) -> T:
        try:
            return read(self._row, column)
        except BadValue as error:
            self.problem = self.problem or str(error)
            return instead


def job_row(row: Row, columns: frozenset[str]) -> OldJobRow:
    """Understand a row of backup_jobs. Raises nothing: see its `problem`."""
    reader = _Reader(row)
    row_id = reader.text("id")
    if not row_id:
        reader.problem = reader.problem or "it has no id"
    backup_type = reader.text("backup_type").strip().lower()
    if backup_type not in _TYPES:
        reader.problem = reader.problem or f"its backup_type {backup_type!r} is unknown"
    names_disk = row.get("disk_id") is not None
    return OldJobRow(
        row_id=row_id,
        names_disk=names_disk,
        disk_index=reader.number("disk_id", _INDEX_LIMIT),
        vm_name=reader.text("vm_name"),
        context_id=reader.text("vm_backup_context_id") or reader.text("vm_context_id"),
        repository_id=reader.text("repository_id"),
        parent_id=reader.text("parent_backup_id"),
        backup_type=_TYPES.get(backup_type, ""),
        status=reader.status("status" in columns),
        path=reader.text("repository_path"),
        change_id=_change_id(reader, "change_id"),
        bytes_transferred=reader.count("bytes_transferred"),
        times=reader.times(),
        problem=reader.problem,
        notes=tuple(reader.notes),
    )


def disk_row(row: Row, columns: frozenset[str]) -> OldDiskRow:
    """Understand a row of backup_disks. Raises nothing: see its `problem`."""
    reader = _Reader(row)
    disk_index = reader.number("disk_index", _INDEX_LIMIT)
    if disk_index is None:
        reader.problem = reader.problem or "it has no disk_index"
    return OldDiskRow(
        row_id=reader.text("id"),
        job_id=reader.text("backup_job_id"),
        context_id=reader.text("vm_backup_context_id"),
        disk_index=disk_index,
        disk_key=reader.number("vmware_disk_key", _KEY_LIMIT),
        size_gb=reader.number("size_gb"),
        path=reader.text("qcow2_path"),
        change_id=_change_id(reader, "disk_change_id"),
        status=reader.status("status" in columns),
        bytes_transferred=reader.count("bytes_transferred"),
        times=reader.times(),
        problem="",
        notes=(),
    )


def context_row(row: Row) -> OldContextRow | None:
    """Understand a row of vm_backup_contexts; None when it cannot be used."""
    try:
        made = OldContextRow(
            context_id=text(row, "context_id"),
            vm_name=text(row, "vm_name"),
            moref=text(row, "vmware_vm_id"),
            vcenter_host=text(row, "vcenter_host"),
            repository_id=text(row, "repository_id"),
            instance_uuid=text(row, "instance_uuid") or text(row, "vm_instance_uuid"),
            created_at=_moment_or_none(row, "created_at"),
        )
    except BadValue:
        return None
    return made if made.context_id and made.vm_name else None


def repository_row(row: Row) -> OldRepositoryRow | None:
    """Understand a row of the repositories' table; None when it cannot be used."""
    try:
        repository_id = text(row, "id")
        path = next((found for name in _PATH_COLUMNS if (found := text(row, name))), "")
        name, config = text(row, "name"), text(row, "config")
    except BadValue:
        return None
    if not path and config:
        path = _path_in(config)
    return OldRepositoryRow(repository_id, name, path) if repository_id else None


def _path_in(config: str) -> str:
    """Some versions keep a repository's folder in a JSON text."""
    try:
        facts = json.loads(config)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(facts, dict):
        return ""
    found = (facts.get(name) for name in _PATH_COLUMNS)
    return next((path for path in found if isinstance(path, str) and path), "")


def _change_id(reader: _Reader, column: str) -> str:
    """It is kept to be shown: imported disks are no base of anything."""
    change_id = reader.text(column)
    if len(change_id) > _CHANGE_ID_CHARS:
        reader.notes.append(f"its {column} is too long to be kept")
        return ""
    return change_id


def _moment_or_none(row: Row, column: str) -> datetime | None:
    try:
        return moment(row, column)
    except BadValue:
        return None
