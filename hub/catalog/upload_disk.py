"""A disk's row while its clusters arrive: upload begun, sealed, broken."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session, joinedload

from hub.catalog.compare_and_set import rows_moved
from hub.catalog.models import MAX_TEXT_CHARS, BackupDisk, BackupJob
from hub.catalog.queries import find_disk
from hub.catalog.read_methods import ReadInFact, read_in_fact
from hub.catalog.tracking_trust import distrust_tracking, lock_trust
from hub.errors import DiskNotUploadable, JobEnded, ProtocolViolation
from hub.jobs.states import LIVE, BackupType, ReadMethod, Status
from sendense.clusters import cluster_count
from shared.errors import SendenseError


@dataclass(frozen=True, slots=True)
class SamplingFacts:
    """How far clusters were checked that would not have been read otherwise, in clusters.

    Tracking called them unchanged, or the host unallocated. `clusters_drawn_from` are
    those that the evenly drawn part of the sample stands for; with 95 % confidence fewer
    than `undetected_clusters_bound` of them differ. `clusters_missed` differ from the
    base: a disk that has none misses none.
    """

    clusters_sampled: int
    clusters_drawn_from: int
    undetected_clusters_bound: int
    clusters_missed: int


NOT_SAMPLED: Final = SamplingFacts(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class SealedFacts:
    """A sealed layer: bytes and place, as its row will say.

    `clusters_missed`: all that the comparison found; a sample may have known of some.
    """

    qcow2_path: str
    root_digest: str
    bytes_planned: int
    bytes_read: int
    bytes_transferred: int
    bytes_stored: int
    bytes_unchanged: int
    clusters_missed: int


def begin_upload(
    session: Session,
    job_id: str,
    disk_index: int,
    *,
    bytes_planned: int,
    full_instead: bool,
    full_reason: str,
    method: ReadMethod | None,
    reason: str,
    sampling: SamplingFacts | None,
    now: datetime,
) -> BackupDisk:
    """Take the disk for an upload; a sealed one is returned as it is, to be answered again.

    `full_instead` clears the row's base before its layer exists, and warns. `method`
    None means as planned. A sample that found missed clusters makes the VM's tracking
    distrusted, whatever becomes of the job. An upload that broke off is taken again: the
    same said once more changes nothing. Raises JobNotFound, DiskNotFound, JobEnded,
    DiskNotUploadable, ProtocolViolation.
    """
    # One after the other: the job's warnings and type are of all its disks.
    missed = sampling is not None and sampling.clusters_missed > 0
    context_ids = lock_trust(session, job_id, missed=missed)
    disk = find_disk(session, job_id, disk_index)
    if disk.sealed_at is not None and disk.status in (Status.RUNNING, Status.COMPLETED):
        return disk
    if disk.job.status is not Status.RUNNING:
        raise JobEnded(job_id, disk.job.status)
    if disk.status not in LIVE:
        raise DiskNotUploadable(job_id, disk_index, f"it is {disk.status}")
    found = _checked(disk, sampling)
    fact = read_in_fact(
        disk,
        method=method,
        reason=reason,
        full_instead=full_instead,
        full_reason=full_reason,
        clusters_missed=found.clusters_missed,
    )
    moved = rows_moved(
        session,
        update(BackupDisk)
        .where(
            BackupDisk.id == disk.id,
            BackupDisk.status.in_(LIVE),
            BackupDisk.sealed_at.is_(None),
        )
        .values(
            status=Status.RUNNING,
            bytes_planned=bytes_planned,
            read_method=fact.method,
            read_reason=fact.reason or None,
            **asdict(found),
        ),
    )
    if moved != 1:
        raise JobEnded(job_id, "ended meanwhile")
    _leave_plan(session, disk, fact)
    if missed:
        distrust_tracking(session, context_ids, job_id, now)
    session.flush()
    return session.scalars(
        select(BackupDisk)
        .where(BackupDisk.id == disk.id)
        .options(joinedload(BackupDisk.base))
        .execution_options(populate_existing=True)
    ).one()


def resume_upload(session: Session, disk: BackupDisk, bytes_resent: int) -> None:
    """An upload that broke off goes on: count it, and the bytes sent again so far.

    `disk` is the row as it was before; repeating it changes nothing. Raises JobEnded.
    """
    times = disk.resume_count + 1
    moved = rows_moved(
        session,
        update(BackupDisk)
        .where(
            BackupDisk.id == disk.id,
            BackupDisk.status == Status.RUNNING,
            BackupDisk.sealed_at.is_(None),
            BackupDisk.resume_count == disk.resume_count,
        )
        .values(resume_count=times, bytes_resent=bytes_resent),
    )
    if moved == 1:
        return
    row = session.scalars(select(BackupDisk).where(BackupDisk.id == disk.id)).one()
    if row.status is not Status.RUNNING or row.resume_count != times:
        raise JobEnded(row.backup_job_id, row.job.status)


def require_unchanged(session: Session, disk: BackupDisk) -> None:
    """The row tells of the same disk as before: its layer is this row's. Raises ProtocolViolation."""
    row = session.scalars(select(BackupDisk).where(BackupDisk.id == disk.id)).one()
    now, before = _told_of_layer(row), _told_of_layer(disk)
    if now != before:
        raise ProtocolViolation(
            f"disk {disk.disk_index} of {disk.backup_job_id} is {now}, its layer is of {before}"
        )


def _told_of_layer(disk: BackupDisk) -> tuple[object, ...]:
    return (
        disk.backup_job_id,
        disk.disk_index,
        disk.vmware_disk_key,
        disk.disk_uuid,
        disk.capacity_bytes,
        disk.disk_change_id,
        disk.base_disk_id,
    )


def seal_disk(session: Session, disk_id: int, facts: SealedFacts, now: datetime) -> None:
    """The disk's layer is on stable storage; repeating it changes nothing.

    Raises JobEnded when its job is no longer running.
    """
    missed = facts.clusters_missed
    job_id = ""
    context_ids: Sequence[str] = ()
    if missed:
        job_id = session.scalars(
            select(BackupDisk.backup_job_id).where(BackupDisk.id == disk_id)
        ).one()
        context_ids = lock_trust(session, job_id, missed=True)
    values = asdict(facts) | {
        "clusters_missed": case(
            (BackupDisk.clusters_missed > missed, BackupDisk.clusters_missed), else_=missed
        )
    }
    moved = rows_moved(
        session,
        update(BackupDisk)
        .where(
            BackupDisk.id == disk_id,
            BackupDisk.status == Status.RUNNING,
            BackupDisk.sealed_at.is_(None),
        )
        .values(**values, sealed_at=now),
    )
    if moved == 1:
        if missed:
            distrust_tracking(session, context_ids, job_id, now)
        return
    disk = session.scalars(select(BackupDisk).where(BackupDisk.id == disk_id)).one()
    told = (disk.qcow2_path, disk.root_digest)
    if disk.sealed_at is None or told != (facts.qcow2_path, facts.root_digest):
        raise JobEnded(disk.backup_job_id, disk.job.status)


def break_disk(session: Session, disk_id: int, error: SendenseError) -> bool:
    """The disk's upload ended without a seal. False when the row had ended before."""
    moved = rows_moved(
        session,
        update(BackupDisk)
        .where(
            BackupDisk.id == disk_id,
            BackupDisk.status == Status.RUNNING,
            BackupDisk.sealed_at.is_(None),
        )
        .values(
            status=Status.FAILED,
            error_reason=error.code[:64],
            error_message=str(error)[:MAX_TEXT_CHARS],
        ),
    )
    return bool(moved)


def _checked(disk: BackupDisk, sampling: SamplingFacts | None) -> SamplingFacts:
    """What the row is to say. Raises ProtocolViolation for numbers that the disk cannot have.

    What an earlier upload of the disk told is kept where this one tells of fewer misses.
    """
    before = SamplingFacts(
        disk.clusters_sampled,
        disk.clusters_drawn_from,
        disk.undetected_clusters_bound,
        disk.clusters_missed,
    )
    if sampling is None or sampling in (NOT_SAMPLED, before):
        return before
    limit = cluster_count(disk.capacity_bytes)
    if disk.read_method is ReadMethod.ALLOCATED and sampling.clusters_missed:
        problem = f"is planned without a base, and its sample missed changes: {sampling}"
    elif not all(0 <= count <= limit for count in asdict(sampling).values()):
        problem = f"has {limit} clusters, and its sample is {sampling}"
    elif sampling.clusters_missed > sampling.clusters_sampled:
        problem = f"cannot have missed more clusters than were sampled: {sampling}"
    else:
        return sampling if sampling.clusters_missed >= before.clusters_missed else before
    raise ProtocolViolation(f"disk {disk.disk_index} of {disk.backup_job_id} {problem}")


def _leave_plan(session: Session, disk: BackupDisk, fact: ReadInFact) -> None:
    """What else changes when the disk is not read as planned."""
    if fact.method is ReadMethod.ALLOCATED and disk.base_disk_id is not None:
        disk.base_disk_id = None
        disk.backup_type = BackupType.FULL
        session.flush()
        session.expire(disk, ["base"])
        if not _has_increments(session, disk.backup_job_id):
            disk.job.backup_type = BackupType.FULL
    if fact.warning is not None:
        disk.job.warnings = [*disk.job.warnings, fact.warning]


def _has_increments(session: Session, job_id: str) -> bool:
    count = session.scalar(
        select(func.count())
        .select_from(BackupDisk)
        .join(BackupJob)
        .where(BackupJob.id == job_id, BackupDisk.base_disk_id.is_not(None))
    )
    return bool(count)
