"""The backups of an estate, day by day: rows of jobs and of their disks, oldest first.

Rows are tuples of what both engines' drivers take: text, numbers and None; times are
text in UTC, as both engines read it.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from bench.catalog.estate import DAYS, FULL_EVERY_DAYS, NOW, SEED, Estate, Machine

JOB_COLUMNS: Final = (
    *("id", "vm_backup_context_id", "repository_id", "run_number", "active_context_id"),
    *("request_id", "backup_type", "requested_type", "quiesce", "status", "consistency"),
    *("snapshot", "other_snapshots", "disk_count", "bytes_planned", "bytes_read"),
    *("bytes_transferred", "bytes_stored", "warnings", "error_reason", "error_message"),
    *("created_at", "started_at", "completed_at"),
)
DISK_COLUMNS: Final = (
    *("id", "vm_backup_context_id", "backup_job_id", "disk_index", "vmware_disk_key"),
    *("disk_uuid", "label", "capacity_bytes", "backup_type", "base_disk_id", "disk_change_id"),
    *("qcow2_path", "bytes_planned", "bytes_read", "bytes_transferred", "bytes_stored"),
    *("root_digest", "status", "error_reason", "error_message", "created_at", "sealed_at"),
    *("completed_at",),
)
GIB: Final = 1 << 30
FAILED: Final = 0.05
CANCELLED: Final = 0.02
REASONS: Final = (
    ("SNAPSHOT_FAILED", "the snapshot could not be made: the datastore is full; free space on it"),
    ("AGENT_LOST", "the agent of the site went away; the next backup starts over"),
    ("READ_FAILED", "disk 1 could not be read at 17179869184: connection reset by the host"),
)
WARNING: Final = (
    '[{"code": "QUIESCE_FAILED", "message": "VMware Tools could not quiesce the guest"}]'
)

Row = tuple[str | int | None, ...]


@dataclass(frozen=True, slots=True)
class Day:
    """What was created on one day."""

    jobs: list[Row]
    disks: list[Row]


class History:
    """Backups of all machines, until there are as many disk rows as wanted. One pass."""

    def __init__(self, estate: Estate, disk_rows: int) -> None:
        self._machines = estate.machines
        self._wanted = disk_rows
        self._chance = random.Random(SEED + 1)
        self._ids: set[str] = set()
        self.disk_rows = 0
        self.jobs = 0

    def days(self) -> Iterator[Day]:
        """Oldest first; the machines' counters are those of the day that was given last."""
        day_number = 0
        begin = NOW - timedelta(days=DAYS)
        while self.disk_rows < self._wanted:
            day = Day([], [])
            starts = [
                (
                    begin
                    + timedelta(days=day_number)
                    + machine.slot / (24 if machine.hourly else 1)
                    + timedelta(hours=hour),
                    number,
                )
                for number, machine in enumerate(self._machines)
                for hour in range(24 if machine.hourly else 1)
            ]
            for at, number in sorted(starts):
                if at >= NOW or self.disk_rows >= self._wanted:
                    break
                self._backup(day, self._machines[number], at)
            if not day.jobs:
                return
            yield day
            day_number += 1

    def _backup(self, day: Day, machine: Machine, at: datetime) -> None:
        chance = self._chance
        machine.runs += 1
        self.jobs += 1
        job_id = self._job_id(machine, at)
        status = chance.choices(
            ("completed", "failed", "cancelled"), (1 - FAILED - CANCELLED, FAILED, CANCELLED)
        )[0]
        full = (
            not machine.bases
            or machine.runs % (FULL_EVERY_DAYS * (24 if machine.hourly else 1)) == 1
        )
        done = status == "completed"
        # A third of what fails does so before there is a snapshot.
        opened = done or chance.random() < 0.67
        started = at + timedelta(seconds=2)
        ended = started + timedelta(seconds=chance.uniform(20, 3000 if full else 400))
        reason, message = (None, None) if done else chance.choice(REASONS)
        kind = "full" if full else "incremental"
        disks = [
            self._disk(machine, job_id, index, full, status, reason, message, at, ended)
            for index in range(machine.disks if opened else 0)
        ]
        planned, read, sent, stored = (sum(int(d[i] or 0) for d in disks) for i in range(12, 16))
        day.jobs.append(
            (
                *(job_id, machine.context_id, machine.repository_id, machine.runs, None),
                *(None, kind, "full" if full else None, 0, status, "crash" if opened else None),
                *(f"sendense-{job_id}"[:64], "[]", len(disks), planned, read),
                *(sent, stored, WARNING if chance.random() < 0.03 else "[]", reason, message),
                *(text(at), text(started) if opened else None, text(ended)),
            )
        )
        day.disks.extend(disks)
        machine.failed += status == "failed"
        if done:
            machine.successful += 1
            machine.stored_bytes += stored
            machine.last_id, machine.last_type, machine.last_at = job_id, kind, ended
            machine.bases = [int(d[0] or 0) for d in disks]

    def _disk(
        self,
        machine: Machine,
        job_id: str,
        index: int,
        full: bool,
        status: str,
        reason: str | None,
        message: str | None,
        at: datetime,
        ended: datetime,
    ) -> Row:
        self.disk_rows += 1
        chance = self._chance
        done = status == "completed"
        capacity = (40 + 20 * index) * GIB
        planned = int(capacity * (chance.uniform(0.3, 0.7) if full else chance.uniform(0, 0.05)))
        read = planned if done else int(planned * chance.random())
        stored = int(read * 0.45)
        uuid = f"6000C29{index:x}-{machine.instance_uuid}"
        return (
            *(self.disk_rows, machine.context_id, job_id, index, 2000 + index),
            *(uuid, f"Hard disk {index + 1}", capacity, "full" if full else "incremental"),
            *(None if full else machine.bases[index], f"52 {uuid[9:32]}/{machine.runs}"),
            f"{machine.context_id}/{job_id}/disk-{index}.qcow2" if done else None,
            *(planned, read, stored, stored if done else 0),
            *(f"{chance.getrandbits(256):064x}" if done else None, status, reason, message),
            *(text(at), text(ended) if done else None, text(ended) if done else None),
        )

    def _job_id(self, machine: Machine, at: datetime) -> str:
        """As the catalog makes them."""
        stem = f"backup-{machine.name.lower()}-{int(at.timestamp())}"
        found, number = stem, 2
        while found in self._ids:
            found, number = f"{stem}-{number}", number + 1
        self._ids.add(found)
        return found


def text(at: datetime) -> str:
    """As SQLite's rows have it, and as MariaDB reads it."""
    return at.isoformat(" ", "microseconds")[:26]
