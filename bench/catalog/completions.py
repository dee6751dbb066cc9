"""Completions: jobs that ran through the catalog's rules, and of each the last transaction."""

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from bench.catalog.estate import NOW, SEED, Machine
from bench.catalog.fill import Filled
from bench.catalog.latency import Latency, latency_of
from hub.catalog.bases import FrozenDisk
from hub.catalog.complete_job import complete_job
from hub.catalog.contexts import VmIdentity
from hub.catalog.engine import Catalog
from hub.catalog.open_job import open_job
from hub.catalog.start_job import start_job
from hub.catalog.upload_disk import SealedFacts, begin_upload, seal_disk
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.states import Consistency

WRITERS: Final = 8
WAIT_S: Final = 300
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Completed:
    """Jobs that `writers` threads completed at once."""

    writers: int
    jobs: int
    disks: int
    per_second: float
    latency: Latency

    def figures(self) -> dict[str, object]:
        """As the result file has them."""
        return {
            "writers": self.writers,
            "jobs": self.jobs,
            "disks": self.disks,
            "per_second": round(self.per_second, 1),
            **self.latency.figures(),
        }


class Completions:
    """VMs are backed up once more, each again when all were."""

    def __init__(self, catalog: Catalog, filled: Filled) -> None:
        self._catalog = catalog
        # All over the catalog, as the backups of a night are.
        self._next = random.Random(SEED + 5).sample(
            filled.estate.machines, len(filled.estate.machines)
        )

    def run(self, jobs: int, writers: int) -> Completed:
        """Bring so many jobs to their last transaction, then do these at once."""
        machines, rest = self._next[:jobs], self._next[jobs:]
        self._next = rest + machines
        with ThreadPoolExecutor(writers, thread_name_prefix="writer") as pool:
            job_ids = list(pool.map(self._prepare, machines, timeout=WAIT_S))
            begin = time.perf_counter()
            times = list(pool.map(self._complete, job_ids, timeout=WAIT_S))
            took_s = time.perf_counter() - begin
        disks = sum(machine.disks for machine in machines)
        return Completed(writers, len(machines), disks, len(machines) / took_s, latency_of(times))

    @retry_catalog
    def _start(self, machine: Machine) -> str:
        vm = VmIdentity(machine.site, machine.instance_uuid, machine.moref, machine.name)
        with self._catalog.write() as session:
            return start_job(
                session,
                vm=vm,
                repository_id=machine.repository_id,
                requested_type=None,
                quiesce=False,
                request_id="",
                now=NOW,
            ).job.id

    @retry_catalog
    def _open(self, machine: Machine, job_id: str) -> Sequence[int]:
        with self._catalog.write() as session:
            rows = open_job(
                session,
                job_id,
                disks=[_frozen(machine, index) for index in range(machine.disks)],
                snapshot=f"sendense-{job_id}"[:64],
                other_snapshots=[],
                consistency=Consistency.CRASH,
                warnings=[],
                layer_problem=lambda row: "",
                now=NOW + timedelta(seconds=2),
            )
            return [row.disk_index for row in rows]

    @retry_catalog
    def _seal(self, machine: Machine, job_id: str, index: int) -> None:
        with self._catalog.write() as session:
            disk = begin_upload(
                session,
                job_id,
                index,
                bytes_planned=MIB,
                full_instead=False,
                full_reason="",
                method=None,
                reason="",
                sampling=None,
                now=NOW + timedelta(seconds=10),
            )
            facts = SealedFacts(
                qcow2_path=f"{machine.context_id}/{job_id}/disk-{index}.qcow2",
                root_digest=f"{index:064x}",
                bytes_planned=MIB,
                bytes_read=MIB,
                bytes_transferred=MIB // 2,
                bytes_stored=MIB // 2,
                bytes_unchanged=0,
                clusters_missed=0,
            )
            seal_disk(session, disk.id, facts, NOW + timedelta(seconds=60))

    def _prepare(self, machine: Machine) -> str:
        job_id = self._start(machine)
        for index in self._open(machine, job_id):
            self._seal(machine, job_id, index)
        return job_id

    def _complete(self, job_id: str) -> float:
        """Seconds, with what the hub does to repeat it."""
        begin = time.perf_counter()
        moved = self._record(job_id)
        took_s = time.perf_counter() - begin
        if not moved:
            raise RuntimeError(f"{job_id} was completed before")
        return took_s

    @retry_catalog
    def _record(self, job_id: str) -> bool:
        with self._catalog.write() as session:
            return complete_job(session, job_id, warnings=[], now=NOW + timedelta(seconds=90))


def _frozen(machine: Machine, index: int) -> FrozenDisk:
    uuid = f"6000C29{index:x}-{machine.instance_uuid}"
    return FrozenDisk(
        disk_index=index,
        vmware_disk_key=2000 + index,
        disk_uuid=uuid,
        label=f"Hard disk {index + 1}",
        capacity_bytes=(40 + 20 * index) << 30,
        change_id=f"52 {uuid[9:32]}/{machine.runs + 1}",
    )
