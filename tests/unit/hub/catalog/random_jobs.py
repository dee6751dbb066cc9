"""A catalog full of jobs that never ran: of a few VMs, states and times drawn from a seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert
from sqlalchemy.orm import Session

from hub.catalog.models import BackupDisk, BackupJob, BackupRepository, VmBackupContext
from hub.jobs.states import BackupType, Status

BEGIN = datetime(2025, 9, 20, 6, 30, tzinfo=UTC)
DAYS = 12
NAMES = ("web", "db", "dc01", "Kasse")
SITES = ("lab", "berlin", "rom")
REPOSITORIES = ("repo-default", "repo-other", "repo-empty")


@dataclass(frozen=True, slots=True)
class FlatJob:
    """A job with what it is filtered by."""

    id: str
    created_at: datetime
    vm_name: str
    context_id: str
    repository_id: str
    status: Status
    backup_type: BackupType
    started_at: datetime | None
    completed_at: datetime | None
    bytes_read: int
    bytes_transferred: int
    bytes_stored: int


def add_random_jobs(session: Session, *, seed: int, contexts: int, jobs: int) -> list[FlatJob]:
    """Insert them; many are created at the very same time. Sorted by nothing."""
    chance = random.Random(seed)
    session.execute(
        insert(BackupRepository).values(
            id="repo-empty", name="empty", path="/empty", is_default=False, created_at=BEGIN
        )
    )
    vms = [
        {
            "context_id": f"ctx-{number:03d}",
            "vm_name": chance.choice(NAMES),
            "vmware_vm_id": f"vm-{number}",
            "instance_uuid": f"uuid-{number}",
            "site": chance.choice(SITES),
            "repository_id": chance.choice(REPOSITORIES[:2]),
            "created_at": BEGIN,
        }
        for number in range(contexts)
    ]
    runs = [0] * contexts
    flat: list[FlatJob] = []
    rows: list[dict[str, object]] = []
    for number in range(jobs):
        # Some VMs have most jobs.
        which = min(chance.randrange(contexts), chance.randrange(contexts))
        runs[which] += 1
        status = chance.choices(list(Status), [1, 1, 14, 3, 1])[0]
        at = BEGIN + timedelta(hours=chance.randrange(24 * DAYS))
        started = None if status is Status.PENDING else at + timedelta(seconds=2)
        flat.append(
            FlatJob(
                id=f"backup-{chance.randrange(10**6):06d}-{number}",
                created_at=at,
                vm_name=str(vms[which]["vm_name"]),
                context_id=str(vms[which]["context_id"]),
                repository_id=str(vms[which]["repository_id"]),
                status=status,
                backup_type=chance.choices(list(BackupType), [1, 6])[0],
                started_at=started,
                completed_at=None
                if started is None or status is Status.RUNNING
                else started + timedelta(microseconds=chance.randrange(10**10)),
                bytes_read=chance.randrange(10**13),
                bytes_transferred=chance.randrange(10**12),
                bytes_stored=chance.randrange(10**12),
            )
        )
        rows.append(_row(flat[-1], runs[which]))
    session.execute(
        insert(VmBackupContext),
        [vm | {"total_backups_run": run} for vm, run in zip(vms, runs, strict=True)],
    )
    session.execute(insert(BackupJob), rows)
    return flat


def add_disks(session: Session, jobs: Sequence[FlatJob], *, seed: int) -> list[tuple[str, int]]:
    """Between none and three a job; (job id, disk index) of each."""
    chance = random.Random(seed)
    keys = [(job, index) for job in jobs for index in range(chance.randrange(4))]
    session.execute(
        insert(BackupDisk),
        [
            {
                "vm_backup_context_id": job.context_id,
                "backup_job_id": job.id,
                "disk_index": index,
                "vmware_disk_key": 2000 + index,
                "disk_uuid": f"6000C29e-{index}",
                "label": f"Hard disk {index + 1}",
                "capacity_bytes": 1 << 30,
                "backup_type": job.backup_type,
                "status": job.status,
                "created_at": job.created_at,
            }
            for job, index in keys
        ],
    )
    return [(job.id, index) for job, index in keys]


def _row(job: FlatJob, run: int) -> dict[str, object]:
    return {
        "id": job.id,
        "vm_backup_context_id": job.context_id,
        "repository_id": job.repository_id,
        "run_number": run,
        "backup_type": job.backup_type,
        "status": job.status,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "bytes_read": job.bytes_read,
        "bytes_transferred": job.bytes_transferred,
        "bytes_stored": job.bytes_stored,
        "other_snapshots": [],
        "warnings": [],
    }
