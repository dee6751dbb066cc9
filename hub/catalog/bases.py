"""Which completed disk an increment builds on, and how it is read: the one place that decides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext
from hub.catalog.tracking_trust import tracking_doubt
from hub.jobs.states import ReadMethod, Status


@dataclass(frozen=True, slots=True)
class FrozenDisk:
    """A disk as the agent's snapshot froze it; `change_id` is empty when it is not tracked."""

    disk_index: int
    vmware_disk_key: int
    disk_uuid: str
    label: str
    capacity_bytes: int
    change_id: str


@dataclass(frozen=True, slots=True)
class BaseChoice:
    """The base of a disk and how it is read. `reason` is empty for CHANGED.

    ALLOCATED: there is no base, because of `reason`. COMPARED: there is one, but changes
    since it cannot be asked for, because of `reason`.
    """

    base: BackupDisk | None
    method: ReadMethod
    reason: str = ""


def last_completed_job(session: Session, context_id: str) -> BackupJob | None:
    """The context's newest restore point. Failed and cancelled jobs are never looked at."""
    return session.scalars(
        select(BackupJob)
        .where(BackupJob.vm_backup_context_id == context_id, BackupJob.status == Status.COMPLETED)
        .order_by(BackupJob.run_number.desc())
        .limit(1)
    ).first()


def choose_base(
    session: Session,
    context: VmBackupContext,
    last_job: BackupJob | None,
    disk: FrozenDisk,
    other_snapshots: Sequence[str],
    layer_problem: Callable[[BackupDisk], str],
) -> BaseChoice:
    """The disk's row in the context's last completed job, when a layer can build on it.

    A disk is who its uuid and device key say, wherever it stands in the list.
    `other_snapshots` are names of those that the VM has now beside the job's.
    `layer_problem` tells why nothing can be built on a disk's layer, or "". It is
    asked within a transaction: it looks up what was found out before.
    """
    if last_job is None:
        return _no_base("the VM has no completed backup in this repository")
    if last_job.imported_at is not None:
        return _no_base(imported_problem(last_job.id))
    if not disk.disk_uuid:
        return _no_base("the disk has no uuid")
    base = session.scalars(
        select(BackupDisk).where(
            BackupDisk.backup_job_id == last_job.id,
            BackupDisk.disk_uuid == disk.disk_uuid,
            BackupDisk.vmware_disk_key == disk.vmware_disk_key,
            BackupDisk.status == Status.COMPLETED,
        )
    ).first()
    if base is None:
        return _no_base(f"the last backup, {last_job.id}, does not have this disk")
    if base.capacity_bytes > disk.capacity_bytes:
        return _no_base(f"the disk shrank {_sizes(base, disk)}")
    if base.legacy_id is not None:
        return _no_base(imported_problem(last_job.id))
    problem = layer_problem(base)
    if problem:
        return _no_base(problem)
    problem = (
        (f"the disk grew {_sizes(base, disk)}" if base.capacity_bytes < disk.capacity_bytes else "")
        or _revert_problem(last_job.other_snapshots, other_snapshots)
        or _tracking_problem(base.disk_change_id, disk.change_id)
        or tracking_doubt(context, last_job)
    )
    return BaseChoice(base, ReadMethod.COMPARED if problem else ReadMethod.CHANGED, problem)


def base_candidates(session: Session, context_id: str) -> Sequence[BackupDisk]:
    """The disks among which `choose_base` will choose for the context's next job."""
    last_job = last_completed_job(session, context_id)
    if last_job is None:
        return []
    return session.scalars(
        select(BackupDisk).where(
            BackupDisk.backup_job_id == last_job.id,
            BackupDisk.status == Status.COMPLETED,
            BackupDisk.legacy_id.is_(None),
        )
    ).all()


def _no_base(reason: str) -> BaseChoice:
    return BaseChoice(None, ReadMethod.ALLOCATED, reason)


def _sizes(base: BackupDisk, disk: FrozenDisk) -> str:
    return f"from {base.capacity_bytes} to {disk.capacity_bytes} bytes"


def imported_problem(job_id: str) -> str:
    """Why nothing is built on a job that was taken over from an earlier system."""
    return (
        f"the last backup, {job_id}, was imported from an earlier system: "
        "its layers have no digests that changes could be checked against"
    )


def _revert_problem(before: Sequence[str], now: Sequence[str]) -> str:
    """Why other snapshots, at the last job or now, make changes since then unknown, or "".

    After a revert a host may go on with the same tracking uuid, and the change query
    would miss changes silently. A revert to a snapshot of before the job takes back
    changes that the job has. One to a snapshot made since goes back no further, but
    what changed up to it may be forgotten when the tracking starts empty from there.
    """
    new = [name for name in now if name not in before]
    having = [
        f"{when} the snapshot(s) {', '.join(repr(name) for name in names)}"
        for when, names in (
            ("the last backup was made while the VM had", before),
            ("the VM has", new),
        )
        if names
    ]
    return f"{' and '.join(having)}; a revert to one could not be told" if having else ""


def _tracking_problem(before: str, now: str) -> str:
    """Why changes between two change ids (`<uuid>/<sequence>`) cannot be known, or ""."""
    if not now:
        return "changed block tracking gives no change id for the disk"
    if not before:
        return "the last backup has no change id of the disk"
    if before.partition("/")[0] != now.partition("/")[0]:
        return "changed block tracking was reset since the last backup"
    if _sequence(now) < _sequence(before):
        return f"changed block tracking went back from {before} to {now}: the VM was reverted"
    return ""


def _sequence(change_id: str) -> int:
    """The number after the slash; what is none does not go back."""
    text = change_id.partition("/")[2]
    return int(text) if text.isascii() and text.isdecimal() else 0
