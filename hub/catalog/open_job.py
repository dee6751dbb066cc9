"""The agent opened a job: its disks get rows, each row its base and the way it is to be read."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from hub.catalog.bases import BaseChoice, FrozenDisk, choose_base, last_completed_job
from hub.catalog.compare_and_set import rows_moved
from hub.catalog.contexts import lock_context_of
from hub.catalog.gone_disks import gone_disks
from hub.catalog.models import BackupDisk, BackupJob, WarningFacts
from hub.catalog.queries import find_job
from hub.errors import JobEnded, NoDisks, ProtocolViolation, SnapshotChanged
from hub.jobs.states import BackupType, Consistency, Event, ReadMethod, Status, sources, target

# Of a disk, while its job is read from one snapshot.
SAME_FACTS: Final = ("vmware_disk_key", "disk_uuid", "capacity_bytes", "change_id")


def open_job(
    session: Session,
    job_id: str,
    *,
    disks: Sequence[FrozenDisk],
    snapshot: str,
    other_snapshots: Sequence[str],
    consistency: Consistency | None,
    warnings: Sequence[WarningFacts],
    layer_problem: Callable[[BackupDisk], str],
    now: datetime,
) -> list[BackupDisk]:
    """Insert the disks' rows with their bases and move the job to running.

    Repeating it with the same snapshot returns the rows that are there. Raises JobNotFound,
    JobEnded, NoDisks, ProtocolViolation, SnapshotChanged.
    """
    # A base that is chosen here cannot be deleted before the row that needs it is there.
    lock_context_of(session, job_id)
    job = find_job(session, job_id)
    if job.status is Status.RUNNING:
        rows = _rows(session, job_id)
        _require_same(job, rows, disks, snapshot)
        return rows
    if job.status is not Status.PENDING:
        raise JobEnded(job_id, job.status)
    _check(job, disks)
    last_job = last_completed_job(session, job.vm_backup_context_id)
    rows = []
    told: list[WarningFacts] = list(warnings)
    for disk in sorted(disks, key=lambda d: d.disk_index):
        choice = _choice(session, job, last_job, disk, other_snapshots, layer_problem)
        if choice.reason:
            warning = full_instead_warning if choice.base is None else compared_warning
            told.append(warning(disk.label, choice.reason))
        rows.append(_row(job, disk, choice, now))
    told += gone_disks(session, last_job, disks, warnings)
    session.add_all(rows)
    incremental = any(row.base_disk_id is not None for row in rows)
    moved = rows_moved(
        session,
        update(BackupJob)
        .where(BackupJob.id == job_id, BackupJob.status.in_(sources(Event.AGENT_OPENED)))
        .values(
            status=target(Event.AGENT_OPENED),
            backup_type=BackupType.INCREMENTAL if incremental else BackupType.FULL,
            consistency=consistency,
            snapshot=snapshot,
            other_snapshots=list(other_snapshots),
            disk_count=len(rows),
            warnings=[*job.warnings, *told],
            started_at=now,
        ),
    )
    if moved != 1:
        raise JobEnded(job_id, "ended meanwhile")
    session.flush()
    return _rows(session, job_id)


def _choice(
    session: Session,
    job: BackupJob,
    last_job: BackupJob | None,
    disk: FrozenDisk,
    other_snapshots: Sequence[str],
    layer_problem: Callable[[BackupDisk], str],
) -> BaseChoice:
    """Its reason is what people are to be told."""
    if job.requested_type is BackupType.FULL:
        return BaseChoice(None, ReadMethod.ALLOCATED)
    if last_job is None and job.requested_type is None:
        # A first backup is full as a matter of course; it is news only to
        # somebody who asked for an increment, or had backups before.
        return BaseChoice(None, ReadMethod.ALLOCATED)
    return choose_base(session, job.context, last_job, disk, other_snapshots, layer_problem)


def full_instead_warning(label: str, reason: str) -> WarningFacts:
    """A disk could have been incremental and was not: people are told why."""
    return {
        "code": "FULL_INSTEAD_OF_INCREMENTAL",
        "message": f"{label} is backed up in full: {reason}",
        "disk_label": label,
    }


def compared_warning(label: str, reason: str) -> WarningFacts:
    """A disk's changes could not be asked for: it costs reading, and people are told why."""
    return {
        "code": "COMPARED_INSTEAD_OF_TRACKING",
        "message": f"{label} is read in full and compared with the last backup: {reason}",
        "disk_label": label,
    }


def _require_same(
    job: BackupJob, rows: Sequence[BackupDisk], disks: Sequence[FrozenDisk], snapshot: str
) -> None:
    """Raises SnapshotChanged unless the snapshot is the one that the rows are of."""
    if snapshot != job.snapshot:
        raise SnapshotChanged(job.id, f"it began with the snapshot {job.snapshot}, not {snapshot}")
    began = {row.disk_index: _frozen(row) for row in rows}
    told = {disk.disk_index: disk for disk in disks}
    if began.keys() != told.keys() or len(told) != len(disks):
        raise SnapshotChanged(
            job.id, f"it began with the disks {sorted(began)}, not {sorted(told)}"
        )
    for index, disk in began.items():
        for fact in SAME_FACTS:
            before, now = getattr(disk, fact), getattr(told[index], fact)
            if before != now:
                raise SnapshotChanged(
                    job.id, f"{fact} of disk {index} of its snapshot was {before} and is {now}"
                )


def _frozen(row: BackupDisk) -> FrozenDisk:
    return FrozenDisk(
        disk_index=row.disk_index,
        vmware_disk_key=row.vmware_disk_key,
        disk_uuid=row.disk_uuid,
        label=row.label,
        capacity_bytes=row.capacity_bytes,
        change_id=row.disk_change_id,
    )


def _check(job: BackupJob, disks: Sequence[FrozenDisk]) -> None:
    if not disks:
        raise NoDisks(job.context.vm_name)
    indexes = [disk.disk_index for disk in disks]
    if len(set(indexes)) != len(indexes) or min(indexes) < 0:
        raise ProtocolViolation(f"the agent named the disk indexes {indexes} for {job.id}")
    keys = [disk.vmware_disk_key for disk in disks]
    if len(set(keys)) != len(keys):
        raise ProtocolViolation(f"the agent named the device keys {keys} for {job.id}")
    for disk in disks:
        if not 0 < disk.capacity_bytes < 2**62:
            raise ProtocolViolation(
                f"disk {disk.disk_index} of {job.id} has {disk.capacity_bytes} bytes"
            )


def _row(job: BackupJob, disk: FrozenDisk, choice: BaseChoice, now: datetime) -> BackupDisk:
    base = choice.base
    return BackupDisk(
        vm_backup_context_id=job.vm_backup_context_id,
        backup_job_id=job.id,
        disk_index=disk.disk_index,
        vmware_disk_key=disk.vmware_disk_key,
        disk_uuid=disk.disk_uuid,
        label=disk.label,
        capacity_bytes=disk.capacity_bytes,
        backup_type=BackupType.FULL if base is None else BackupType.INCREMENTAL,
        base_disk_id=None if base is None else base.id,
        read_method=choice.method,
        read_reason=choice.reason or None,
        disk_change_id=disk.change_id,
        status=Status.PENDING,
        created_at=now,
    )


def _rows(session: Session, job_id: str) -> list[BackupDisk]:
    return list(
        session.scalars(
            select(BackupDisk)
            .where(BackupDisk.backup_job_id == job_id)
            .order_by(BackupDisk.disk_index)
        )
    )
