"""What happens to jobs, told through the catalog's rules, one committed transaction a step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from hub.catalog.bases import FrozenDisk
from hub.catalog.complete_job import complete_job
from hub.catalog.contexts import VmIdentity
from hub.catalog.end_job import end_job
from hub.catalog.engine import Catalog
from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext, WarningFacts
from hub.catalog.open_job import open_job
from hub.catalog.queries import find_job
from hub.catalog.start_job import start_job
from hub.catalog.upload_disk import SamplingFacts, SealedFacts, begin_upload, seal_disk
from hub.jobs.states import BackupType, Consistency, Event, ReadMethod

PGTEST = VmIdentity(site="lab", instance_uuid="uuid-1", moref="vm-1", name="pgtest1")
GIB = 1 << 30


def frozen(index: int = 0, **more: object) -> FrozenDisk:
    """A disk of a snapshot; disks differ by their index unless told otherwise."""
    facts = {
        "disk_index": index,
        "vmware_disk_key": 2000 + index,
        "disk_uuid": f"6000C29e-{index}",
        "label": f"Hard disk {index + 1}",
        "capacity_bytes": GIB,
        "change_id": "52 aa/1",
    } | more
    return FrozenDisk(**facts)  # type: ignore[arg-type]


@dataclass
class Story:
    catalog: Catalog
    now: Callable[[], datetime]

    def start(
        self,
        vm: VmIdentity = PGTEST,
        *,
        repository: str = "repo-default",
        kind: BackupType | None = None,
        request_id: str = "",
    ) -> BackupJob:
        with self.catalog.write() as session:
            return start_job(
                session,
                vm=vm,
                repository_id=repository,
                requested_type=kind,
                quiesce=False,
                request_id=request_id,
                now=self.now(),
            ).job

    def open(
        self,
        job: BackupJob,
        *disks: FrozenDisk,
        layer_problem: Callable[[BackupDisk], str] = lambda row: "",
        other_snapshots: Sequence[str] = (),
        warnings: Sequence[WarningFacts] = (),
    ) -> Sequence[BackupDisk]:
        with self.catalog.write() as session:
            return open_job(
                session,
                job.id,
                disks=disks or [frozen()],
                snapshot="snapshot-1",
                other_snapshots=other_snapshots,
                consistency=Consistency.CRASH,
                warnings=warnings,
                layer_problem=layer_problem,
                now=self.now(),
            )

    def upload(self, job: BackupJob, index: int = 0, **begun: Any) -> BackupDisk:
        """Begin it."""
        with self.catalog.write() as session:
            return self.begin(session, job, index, **begun)

    def begin(
        self,
        session: Session,
        job: BackupJob,
        index: int = 0,
        *,
        full_reason: str = "",
        method: ReadMethod | None = None,
        reason: str = "",
        sampling: SamplingFacts | None = None,
    ) -> BackupDisk:
        """`upload` within the caller's transaction."""
        return begin_upload(
            session,
            job.id,
            index,
            bytes_planned=4,
            full_instead=bool(full_reason),
            full_reason=full_reason,
            method=method,
            reason=reason,
            sampling=sampling,
            now=self.now(),
        )

    def seal(
        self, job: BackupJob, index: int = 0, *, clusters_missed: int = 0, **begun: Any
    ) -> None:
        """From the begin of its upload on."""
        disk = self.upload(job, index, **begun)
        with self.catalog.write() as session:
            facts = SealedFacts(
                qcow2_path=f"{job.vm_backup_context_id}/{job.id}/disk-{index}.qcow2",
                root_digest="ab" * 32,
                bytes_planned=4,
                bytes_read=3,
                bytes_transferred=2,
                bytes_stored=1,
                bytes_unchanged=0,
                clusters_missed=clusters_missed,
            )
            seal_disk(session, disk.id, facts, self.now())

    def complete(self, job: BackupJob, warnings: Sequence[WarningFacts] = ()) -> bool:
        with self.catalog.write() as session:
            return complete_job(session, job.id, warnings=warnings, now=self.now())

    def fail(
        self,
        job: BackupJob,
        event: Event = Event.FAILED,
        *,
        warnings: Sequence[WarningFacts] = (),
        with_files: bool = False,
    ) -> bool:
        with self.catalog.write() as session:
            return end_job(
                session,
                job.id,
                event,
                reason="BROKEN",
                message="it broke",
                warnings=warnings,
                with_files=with_files,
                now=self.now(),
            )

    def whole(
        self,
        *disks: FrozenDisk,
        kind: BackupType | None = None,
        other_snapshots: Sequence[str] = (),
        **more: object,
    ) -> BackupJob:
        """A job from start to completion."""
        job = self.start(kind=kind, **more)  # type: ignore[arg-type]
        for row in self.open(job, *disks, other_snapshots=other_snapshots):
            self.seal(job, row.disk_index)
        assert self.complete(job)
        return self.job(job)

    def job(self, job: BackupJob) -> BackupJob:
        """As the catalog has it now."""
        with self.catalog.read() as session:
            return find_job(session, job.id, with_disks=True)

    def context(self, job: BackupJob) -> VmBackupContext:
        """As the catalog has it now."""
        return self.job(job).context
