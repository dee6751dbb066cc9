"""One round of the benchmark: the same work by the product and by qemu-img, one after the other."""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.agent_process import VM_NAME
from bench.process_facts import cpu_seconds
from bench.source import Source
from sendense import BackupStatus, BackupType, Client
from tools.paths import system_program
from tools.sparse import identical

STEP_TIMEOUT_S: Final = 300
QEMU_BACKUP: Final = (
    *("convert", "-c", "-W", "-m", "16", "-f", "raw", "-O", "qcow2"),
    *("-o", "compression_type=zstd"),
)
QEMU_RESTORE: Final = ("convert", "-f", "qcow2", "-O", "raw")


class BenchmarkFailed(Exception):
    """A step did not do its work, so that its time means nothing."""


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds and bytes of one round."""

    full_s: float
    qemu_full_s: float
    restore_s: float
    qemu_restore_s: float
    # How long `fsync` of qemu-img's image takes, which its time leaves out.
    qemu_full_sync_s: float
    hub_cpu_s: float
    agent_cpu_s: float
    stored_bytes: int
    qemu_stored_bytes: int


class Rounds:
    """Runs rounds in one working folder against one hub and one agent."""

    def __init__(
        self, folder: Path, client: Client, source: Source, *, hub_pid: int, agent_pid: int
    ) -> None:
        self._folder = folder
        self._client = client
        self._source = source
        self._repository = Path(client.list_repositories()[0].path)
        self._hub_pid = hub_pid
        self._agent_pid = agent_pid
        self._layer = Path()
        self._job_id = ""
        self._stored_bytes = 0

    def run(self, number: int) -> Round:
        """All four steps; odd and even rounds begin with the other side. Raises BenchmarkFailed."""
        qemu_image = self._folder / "qemu.qcow2"
        restored, qemu_restored = self._folder / "restored.raw", self._folder / "qemu-restored.raw"
        cpu_s: dict[str, float] = {}

        def full() -> None:
            cpu_s["hub"], cpu_s["agent"] = self._cpu()
            self._back_up()
            hub, agent = self._cpu()
            cpu_s["hub"], cpu_s["agent"] = hub - cpu_s["hub"], agent - cpu_s["agent"]

        qemu_sync_s: list[float] = []
        full_s, qemu_full_s = _both(
            number,
            full,
            lambda: _qemu_img(*QEMU_BACKUP, self._source.path, qemu_image),
            after_theirs=lambda: qemu_sync_s.append(_sync_seconds(qemu_image)),
        )
        restore_s, qemu_restore_s = _both(
            number,
            lambda: self._client.restore_disk(self._job_id, 0, restored),
            lambda: _qemu_img(*QEMU_RESTORE, self._layer, qemu_restored),
        )
        for file in (restored, qemu_restored):
            if not identical(self._source.path, file):
                raise BenchmarkFailed(f"{file.name} differs from the source")
        result = Round(
            full_s=full_s,
            qemu_full_s=qemu_full_s,
            restore_s=restore_s,
            qemu_restore_s=qemu_restore_s,
            qemu_full_sync_s=qemu_sync_s[0],
            hub_cpu_s=cpu_s["hub"],
            agent_cpu_s=cpu_s["agent"],
            stored_bytes=self._stored_bytes,
            qemu_stored_bytes=qemu_image.stat().st_size,
        )
        for file in (qemu_image, restored, qemu_restored):
            file.unlink()
        return result

    def _back_up(self) -> None:
        started = self._client.start_backup(VM_NAME, backup_type=BackupType.FULL)
        job = self._client.wait(started.job_id, timeout_s=STEP_TIMEOUT_S)
        if BackupStatus(job.status) is not BackupStatus.COMPLETED:
            raise BenchmarkFailed(f"backup {job.job_id} did not complete: {job.error.message}")
        disk = self._client.get_disk(job.job_id, 0).disk
        self._job_id = job.job_id
        self._layer = self._repository / disk.qcow2_path
        self._stored_bytes = disk.bytes_stored

    def _cpu(self) -> tuple[float, float]:
        return cpu_seconds(self._hub_pid), cpu_seconds(self._agent_pid)


def _both(
    number: int,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    after_theirs: Callable[[], object] = lambda: None,
) -> tuple[float, float]:
    """Seconds of both, run one after the other in an order that alternates.

    `after_theirs` follows their step at once and is in neither time.
    """
    if number % 2:
        ours_s, theirs_s = _timed(ours), _timed(theirs)
        after_theirs()
    else:
        theirs_s = _timed(theirs)
        after_theirs()
        ours_s = _timed(ours)
    return ours_s, theirs_s


def _timed(step: Callable[[], object]) -> float:
    # What an earlier step left to be written must not be paid for by this one.
    os.sync()
    began_at = time.perf_counter()
    step()
    return time.perf_counter() - began_at


def _qemu_img(*arguments: str | Path) -> None:
    done = subprocess.run(
        [system_program("qemu-img"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise BenchmarkFailed(f"qemu-img {arguments[0]} failed: {done.stderr.strip()}")


def _sync_seconds(path: Path) -> float:
    """How long it takes until what was just written to a file is on stable storage."""
    began_at = time.perf_counter()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - began_at
