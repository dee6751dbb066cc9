"""The earlier system's catalog as a whole: which rows are disks of backups, and of which VM."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hub.legacy.old_rows import (
    COMPLETED,
    FULL,
    UNSUCCESSFUL,
    OldContextRow,
    OldDiskRow,
    OldJobRow,
    OldRepositoryRow,
    RowRef,
    Times,
    context_row,
    disk_row,
    job_row,
    repository_row,
)
from hub.legacy.tables import CONTEXTS, DISKS, JOBS, REPOSITORIES, OldTables

_STEM: Final = re.compile(r"(\d+)-disk-?(\d+)(?:-.*)?")
_LEGACY_ID_CHARS: Final = 255


@dataclass(frozen=True, slots=True, order=True)
class OldVm:
    """A VM in a repository of the old system; `context_id` is empty where it kept no context."""

    vm_name: str
    repository_id: str
    context_id: str


@dataclass(frozen=True, slots=True)
class OldDisk:
    """One disk of one old backup, whichever tables tell of it."""

    refs: tuple[RowRef, ...]
    # By this our row is found again.
    legacy_id: str
    # Its id in backup_jobs, by which others may name it; empty without such a row.
    row_id: str
    vm: OldVm
    disk_index: int | None
    # Of a row of backup_disks: the job it says it belongs to.
    job_id: str
    parent_id: str
    backup_type: str  # as recorded of this disk, or empty
    status: str
    path: str
    change_id: str
    disk_key: int | None
    size_gb: int | None
    bytes_transferred: int
    times: Times
    problem: str
    notes: tuple[str, ...]

    @property
    def stem(self) -> str:
        """`backup-<vm>-<number>` of an id `backup-<vm>-<number>-disk<index>...`, else ""."""
        head = f"backup-{self.vm.vm_name}-"
        found = _STEM.fullmatch(self.row_id[len(head) :]) if self.row_id.startswith(head) else None
        if found is None or int(found[2]) != self.disk_index:
            return ""
        return head + found[1]

    @property
    def is_unsuccessful(self) -> bool:
        """It failed or was cancelled: it never was a restore point."""
        return self.status in UNSUCCESSFUL


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows that are not imported, and why."""

    refs: tuple[RowRef, ...]
    vm_name: str
    repository_id: str
    backup: str  # its backup's key, where it has one
    reason: str
    # The backup had not succeeded: nothing is lost.
    is_unsuccessful: bool = False
    disk: OldDisk | None = None  # that the rows tell of


@dataclass(frozen=True, slots=True)
class OldCatalog:
    """What the old catalog tells."""

    disks: Sequence[OldDisk]
    jobs: Mapping[str, OldJobRow]
    contexts: Mapping[str, OldContextRow]
    repositories: Mapping[str, OldRepositoryRow]
    left_out: Sequence[LeftOut]


def understand(tables: OldTables) -> OldCatalog:
    """Read the rows. Nothing is grouped and no file is looked at. Raises nothing."""
    contexts, bad_contexts = _contexts(tables)
    repositories = {
        row.repository_id: row
        for raw in tables.rows[REPOSITORIES]
        if (row := repository_row(raw)) is not None
    }
    jobs = [job_row(raw, tables.columns[JOBS]) for raw in tables.rows[JOBS]]
    rows = [disk_row(raw, tables.columns[DISKS]) for raw in tables.rows[DISKS]]
    made = _Disks(jobs, rows, contexts)
    return OldCatalog(
        made.disks(), made.jobs, contexts, repositories, [*bad_contexts, *made.left_out]
    )


def _contexts(tables: OldTables) -> tuple[dict[str, OldContextRow], list[LeftOut]]:
    contexts, left_out = {}, []
    for raw in tables.rows[CONTEXTS]:
        row = context_row(raw)
        if row is not None:
            contexts[row.context_id] = row
            continue
        ref = RowRef(CONTEXTS, str(raw.get("context_id")))
        left_out.append(LeftOut((ref,), "", "", "", "it has no usable context_id and vm_name"))
    return contexts, left_out


class _Disks:
    """Makes the disks of the rows of both tables."""

    def __init__(
        self,
        jobs: Sequence[OldJobRow],
        rows: Sequence[OldDiskRow],
        contexts: Mapping[str, OldContextRow],
    ) -> None:
        self._contexts = contexts
        times_used = Counter(job.row_id for job in jobs)
        self._all = [
            replace(job, problem=job.problem or "several rows have its id")
            if times_used[job.row_id] > 1
            else job
            for job in jobs
        ]
        self.jobs = {job.row_id: job for job in self._all}
        self.left_out: list[LeftOut] = []
        self._rows_of: dict[str, list[OldDiskRow]] = defaultdict(list)
        for row in rows:
            self._rows_of[row.job_id].append(row)
        self._named_by: dict[str, list[OldDisk]] = defaultdict(list)
        for job in self._all:
            if job.names_disk and job.parent_id and job.parent_id != job.row_id:
                self._named_by[job.parent_id].append(self._of_job(job))
        self._stems: dict[str, set[int | None]] = defaultdict(set)
        for job in self._all:
            if job.names_disk and (stem := self._of_job(job).stem):
                self._stems[stem].add(job.disk_index)

    def disks(self) -> list[OldDisk]:
        """Each disk once, and `left_out` for rows that are none."""
        found: list[OldDisk] = []
        merged: set[str] = set()  # ids of backup_disks rows that tell of a row of backup_jobs
        for job in self._all:
            own = self._rows_of.get(job.row_id, [])
            if self._is_disk(job, own):
                beside = self._rows_beside(job)
                merged |= {row.row_id for row in beside}
                found.append(self._merged(self._of_job(job), beside))
            elif not own and not self._named_by[job.row_id] and job.row_id not in self._stems:
                self._leave_out_job(job)
        for job_id, rows in self._rows_of.items():
            free = [row for row in rows if row.row_id not in merged]
            found += [self._of_row(row, self.jobs.get(job_id), rows) for row in free]
        return found

    def _is_disk(self, job: OldJobRow, own: Sequence[OldDiskRow]) -> bool:
        """Whether a row of backup_jobs is one disk, and not the backup that disks belong to."""
        if not job.names_disk:
            return False
        indexes = self._stems.get(job.row_id, set())
        if job.disk_index in indexes:
            # Where disk_id may not be NULL, the backup's own row has 0 in it.
            return False
        if own:
            return [row.disk_index for row in own] == [job.disk_index]
        indexes = indexes | {disk.disk_index for disk in self._named_by[job.row_id]}
        return bool(job.path or job.change_id) or indexes <= {job.disk_index}

    def _rows_beside(self, job: OldJobRow) -> list[OldDiskRow]:
        """Rows of backup_disks that tell of the very disk of a row of backup_jobs."""
        own = self._rows_of.get(job.row_id, [])
        if own:
            return own
        of_parent = [
            row for row in self._rows_of.get(job.parent_id, []) if row.disk_index == job.disk_index
        ]
        rivals = [d for d in self._named_by[job.parent_id] if d.disk_index == job.disk_index]
        if len(of_parent) != 1 or len(rivals) != 1:
            return []
        # Beside a disk of its own they would make two of that index: one of them is wrong.
        return of_parent if _same_place(job.path, of_parent[0].path) else []

    def _of_job(self, job: OldJobRow) -> OldDisk:
        vm, problem = self._vm(job.context_id, job.vm_name, job.repository_id)
        if len(job.row_id) > _LEGACY_ID_CHARS:
            problem = problem or "its id is too long to be kept"
        return OldDisk(
            refs=(job.ref,),
            legacy_id=job.row_id,
            row_id=job.row_id,
            vm=vm,
            disk_index=job.disk_index,
            job_id="",
            parent_id=job.parent_id,
            backup_type=job.backup_type,
            status=job.status,
            path=job.path,
            change_id=job.change_id,
            disk_key=None,
            size_gb=None,
            bytes_transferred=job.bytes_transferred,
            times=job.times,
            problem=job.problem or problem,
            notes=job.notes,
        )

    def _merged(self, disk: OldDisk, beside: Sequence[OldDiskRow]) -> OldDisk:
        """What a second row adds; where the two disagree, that is the disk's problem."""
        for row in beside:
            problem = disk.problem or row.problem
            if not _same_place(disk.path, row.path):
                problem = problem or f"{row.ref} names another file, {row.path}"
            if disk.change_id and row.change_id and disk.change_id != row.change_id:
                problem = problem or f"{row.ref} names another change id"
            disk = replace(
                disk,
                refs=(*disk.refs, row.ref),
                path=row.path or disk.path,
                change_id=disk.change_id or row.change_id,
                disk_key=row.disk_key,
                size_gb=row.size_gb,
                bytes_transferred=disk.bytes_transferred or row.bytes_transferred,
                status=row.status if disk.status == COMPLETED else disk.status,
                times=_either(disk.times, row.times),
                problem=problem,
                notes=(*disk.notes, *row.notes),
            )
        return disk

    def _of_row(
        self, row: OldDiskRow, job: OldJobRow | None, siblings: Sequence[OldDiskRow]
    ) -> OldDisk:
        problem = row.problem
        if job is None:
            vm, _ = self._vm(row.context_id, "", "")
            problem = problem or f"its job {row.job_id!r} is not in the old catalog"
        else:
            vm, of_vm = self._vm(job.context_id or row.context_id, job.vm_name, job.repository_id)
            problem = problem or job.problem or of_vm or self._of_another(row, vm)
            indexes = {each.disk_index for each in siblings}
            if (job.path or job.change_id) and job.names_disk and job.disk_index not in indexes:
                problem = problem or f"its job names disk {job.disk_index}, which has no row here"
            elif (
                job.disk_index == row.disk_index
                and job.path.endswith(".qcow2")
                and not _same_place(job.path, row.path)
            ):
                problem = problem or f"its job names another file, {job.path}"
        legacy_id = f"{row.job_id}/disk-{row.disk_index}"
        if len(legacy_id) > _LEGACY_ID_CHARS:
            problem = problem or "its job's id is too long to be kept"
        status = job.status if job is not None and job.status != COMPLETED else row.status
        return OldDisk(
            refs=(row.ref,),
            legacy_id=legacy_id,
            row_id="",
            vm=vm,
            disk_index=row.disk_index,
            job_id=row.job_id,
            parent_id="",
            # Recorded of the job: in an increment a disk may have been a full.
            backup_type=FULL if job is not None and job.backup_type == FULL else "",
            status=status,
            path=row.path,
            change_id=row.change_id,
            disk_key=row.disk_key,
            size_gb=row.size_gb,
            bytes_transferred=row.bytes_transferred,
            times=_either(row.times, job.times if job is not None else Times()),
            problem=problem,
            notes=row.notes,
        )

    def _of_another(self, row: OldDiskRow, vm: OldVm) -> str:
        context = self._contexts.get(row.context_id)
        if context is None or not vm.context_id or context.context_id == vm.context_id:
            return ""
        return f"its context {row.context_id} is not that of its job"

    def _vm(self, context_id: str, vm_name: str, repository_id: str) -> tuple[OldVm, str]:
        """The VM of a row, and what is wrong with that."""
        context = self._contexts.get(context_id)
        if context is not None:
            vm = OldVm(context.vm_name, repository_id or context.repository_id, context.context_id)
            if vm_name and vm_name != context.vm_name:
                return vm, f"it names the VM {vm_name!r}, its context {context.vm_name!r}"
            if context.repository_id not in ("", vm.repository_id):
                return vm, f"it is not in the repository of its context, {context.repository_id!r}"
            return vm, "" if vm.repository_id else "it names no repository"
        named = [
            each
            for each in self._contexts.values()
            if each.vm_name == vm_name and each.repository_id in ("", repository_id)
        ]
        if len(named) == 1:
            vm = OldVm(vm_name, repository_id, named[0].context_id)
        else:
            vm = OldVm(vm_name, repository_id, "")
        if not vm_name:
            return vm, "it names no VM"
        if not repository_id:
            return vm, "it names no repository"
        if len(named) > 1:
            return vm, f"several contexts of the old catalog are of a VM {vm_name!r}"
        return vm, ""

    def _leave_out_job(self, job: OldJobRow) -> None:
        reason = job.problem or "it names no disk, and no disk names it"
        self.left_out.append(
            LeftOut(
                (job.ref,),
                job.vm_name,
                job.repository_id,
                job.row_id,
                f"the backup is {job.status}" if job.status in UNSUCCESSFUL else reason,
                is_unsuccessful=job.status in UNSUCCESSFUL,
            )
        )


def _same_place(one: str, other: str) -> bool:
    """Whether two recorded paths may be of one file: some versions record its folder."""
    if not one or not other or one == other:
        return True
    return _within(one, other) or _within(other, one)


def _within(folder: str, path: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _either(times: Times, others: Times) -> Times:
    return Times(
        times.created_at or others.created_at,
        times.started_at or others.started_at,
        times.completed_at or others.completed_at,
    )


def row_refs(disks: Iterable[OldDisk]) -> tuple[RowRef, ...]:
    """The rows that tell of these disks."""
    return tuple(sorted({ref for disk in disks for ref in disk.refs}))
