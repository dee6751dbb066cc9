"""Rows for what was planned: one context a transaction, found again by its legacy ids."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from hub.catalog.bases import last_completed_job
from hub.catalog.contexts import lock_context
from hub.catalog.file_removals import has_pending_files
from hub.catalog.ids import candidates
from hub.catalog.models import ID_CHARS, BackupDisk, BackupJob, VmBackupContext
from hub.catalog.repositories import lock_repository
from hub.errors import CatalogUnavailable
from hub.jobs.states import Status
from hub.legacy.planned import PlannedContext, PlannedDisk, PlannedJob

_FIT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class WrittenContext:
    """What was made: the context's id, and the new jobs' by their keys."""

    context_id: str
    job_ids: dict[str, str]


def write_context(
    session: Session,
    planned: PlannedContext,
    *,
    folder_exists: Callable[[str], bool],
    now: datetime,
) -> WrittenContext:
    """Insert what is not there yet; nothing when all is. The repository has an id now.

    `folder_exists` tells whether the repository has an entry of that name: a new
    context's folder must be its alone.
    """
    lock_repository(session, planned.place.repository_id)
    disk_ids = _known_disks(session, planned)
    new = [
        job for job in planned.new_jobs if not all(disk.legacy_id in disk_ids for disk in job.disks)
    ]
    context_id = _context(session, planned, folder_exists, now)
    if not new:
        return WrittenContext(context_id, {})
    job_ids = _ids_of(session, new, planned.vm_name, set())
    existing = {job.key: job.existing_id for job in planned.jobs if job.existing_id}
    numbers = _make_room(
        session, context_id, [existing.get(job.key, "") or job.key for job in planned.jobs], job_ids
    )
    for job in new:
        _add_job(session, context_id, planned, job, job_ids[job.key], numbers[job.key], now)
        for disk in job.disks:
            row = _disk(context_id, job_ids[job.key], disk, disk_ids)
            session.add(row)
            session.flush()
            disk_ids[disk.legacy_id] = row.id
    _count(session, context_id, new)
    return WrittenContext(context_id, job_ids)


def ids_of_new_jobs(session: Session, contexts: Iterable[PlannedContext]) -> dict[str, str]:
    """The ids that the new jobs would get, by their keys, were they written now in this order."""
    job_ids: dict[str, str] = {}
    for planned in contexts:
        job_ids |= _ids_of(session, planned.new_jobs, planned.vm_name, set(job_ids.values()))
    return job_ids


def _ids_of(
    session: Session, new: Iterable[PlannedJob], vm_name: str, given: set[str]
) -> dict[str, str]:
    job_ids: dict[str, str] = {}
    for job in new:
        job_ids[job.key] = _job_id(session, job, vm_name, given | set(job_ids.values()))
    return job_ids


def _known_disks(session: Session, planned: PlannedContext) -> dict[str, int]:
    wanted = [disk.legacy_id for job in planned.jobs for disk in job.disks]
    found: dict[str, int] = {}
    for at in range(0, len(wanted), _CHUNK):
        rows = session.execute(
            select(BackupDisk.legacy_id, BackupDisk.id).where(
                BackupDisk.legacy_id.in_(wanted[at : at + _CHUNK])
            )
        )
        found.update((legacy_id, row_id) for legacy_id, row_id in rows if legacy_id is not None)
    return found


def _context(
    session: Session,
    planned: PlannedContext,
    folder_exists: Callable[[str], bool],
    now: datetime,
) -> str:
    """The context's id; it is held until the transaction ends."""
    found = (
        planned.existing_id
        or session.scalars(
            select(VmBackupContext.context_id).where(
                VmBackupContext.site == planned.site,
                VmBackupContext.instance_uuid == planned.instance_uuid,
                VmBackupContext.repository_id == planned.place.repository_id,
            )
        ).first()
    )
    if found:
        lock_context(session, found)
        return found
    wanted = [planned.old_id] if _is_fit(planned.old_id) else []
    context_id = _free(
        chain(wanted, candidates("ctx-backup", planned.vm_name, now)),
        lambda each: session.get(VmBackupContext, each) is None and not folder_exists(each),
    )
    session.add(
        VmBackupContext(
            context_id=context_id,
            vm_name=planned.vm_name,
            vmware_vm_id=planned.moref,
            instance_uuid=planned.instance_uuid,
            site=planned.site,
            repository_id=planned.place.repository_id,
            total_backups_run=0,
            created_at=planned.created_at,
        )
    )
    session.flush()
    return context_id


def _job_id(session: Session, job: PlannedJob, vm_name: str, given: set[str]) -> str:
    wanted = [job.wanted_id] if _is_fit(job.wanted_id) else []
    # A removal of a folder is told from one of a file by the job's id as its name.
    taken = given | {disk.path.rpartition("/")[2] for disk in job.disks}
    return _free(
        chain(wanted, candidates("backup", vm_name, job.created_at)),
        lambda each: (
            each not in taken
            and session.get(BackupJob, each) is None
            and not has_pending_files(session, each)
        ),
    )


def _is_fit(old_id: str) -> bool:
    return len(old_id) <= ID_CHARS and _FIT_ID.fullmatch(old_id) is not None


def _free(ids: Iterator[str], is_free: Callable[[str], bool]) -> str:
    for each in islice(ids, 10_000):
        if is_free(each):
            return each
    raise CatalogUnavailable("no free id was found")


def _make_room(
    session: Session, context_id: str, order: Sequence[str], new: dict[str, str]
) -> dict[str, int]:
    """Run numbers of the new jobs, by key: each right after the job before it in `order`.

    `order` has the ids of jobs that are there and the keys of new ones. Jobs
    that come after them, those of this system above all, move up.
    """
    rows = session.execute(
        select(BackupJob.id, BackupJob.run_number)
        .where(BackupJob.vm_backup_context_id == context_id)
        .order_by(BackupJob.run_number)
    ).all()
    there: dict[str, int] = {row[0]: row[1] for row in rows}
    follows: dict[str, list[str]] = {"": []}
    last = ""
    for name in order:
        if name in new:
            follows[last].append(name)
        elif name in there:
            last = name
            follows.setdefault(name, [])
    numbers: dict[str, int] = {}
    moved: dict[str, int] = {}
    shift = 0
    # New ones that nothing is before are the first.
    for job_id, number in [("", 0), *((row[0], row[1]) for row in rows)]:
        if shift and job_id:
            moved[job_id] = number + shift
        for name in follows.get(job_id, ()):
            shift += 1
            numbers[name] = number + shift
    if moved:
        # Numbers are unique at every moment: away first, then to their places.
        session.execute(
            update(BackupJob)
            .where(
                BackupJob.vm_backup_context_id == context_id,
                BackupJob.run_number >= min(there[job_id] for job_id in moved),
            )
            .values(run_number=-BackupJob.run_number)
            .execution_options(synchronize_session=False)
        )
        for job_id, number in moved.items():
            session.execute(
                update(BackupJob)
                .where(BackupJob.id == job_id)
                .values(run_number=number)
                .execution_options(synchronize_session=False)
            )
    return numbers


def _add_job(
    session: Session,
    context_id: str,
    planned: PlannedContext,
    job: PlannedJob,
    job_id: str,
    run_number: int,
    now: datetime,
) -> None:
    session.add(
        BackupJob(
            id=job_id,
            vm_backup_context_id=context_id,
            repository_id=planned.place.repository_id,
            run_number=run_number,
            backup_type=job.backup_type,
            status=Status.COMPLETED,
            disk_count=len(job.disks),
            bytes_transferred=sum(disk.bytes_transferred for disk in job.disks),
            bytes_stored=job.bytes_stored,
            created_at=job.created_at,
            started_at=job.started_at,
            completed_at=job.completed_at,
            imported_at=now,
        )
    )
    session.flush()


def _disk(context_id: str, job_id: str, disk: PlannedDisk, disk_ids: dict[str, int]) -> BackupDisk:
    base = disk.base_legacy_id
    return BackupDisk(
        vm_backup_context_id=context_id,
        backup_job_id=job_id,
        disk_index=disk.disk_index,
        vmware_disk_key=disk.disk_key,
        disk_uuid="",
        label=f"disk {disk.disk_index}",
        capacity_bytes=disk.capacity_bytes,
        backup_type=disk.backup_type,
        base_disk_id=None if base is None else disk_ids[base],
        disk_change_id=disk.change_id,
        qcow2_path=disk.path,
        bytes_transferred=disk.bytes_transferred,
        bytes_stored=disk.bytes_stored,
        root_digest=None,
        status=Status.COMPLETED,
        created_at=disk.created_at,
        sealed_at=disk.completed_at,
        completed_at=disk.completed_at,
        legacy_id=disk.legacy_id,
    )


def _count(session: Session, context_id: str, new: Sequence[PlannedJob]) -> None:
    last = last_completed_job(session, context_id)
    assert last is not None
    session.execute(
        update(VmBackupContext)
        .where(VmBackupContext.context_id == context_id)
        .values(
            total_backups_run=VmBackupContext.total_backups_run + len(new),
            successful_backups=VmBackupContext.successful_backups + len(new),
            restore_point_count=VmBackupContext.restore_point_count + len(new),
            bytes_stored=VmBackupContext.bytes_stored + sum(job.bytes_stored for job in new),
            last_backup_id=last.id,
            last_backup_type=last.backup_type,
            last_backup_at=last.completed_at,
        )
        .execution_options(synchronize_session=False)
    )
