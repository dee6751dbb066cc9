"""A hub in this process and one scripted agent, for tests of every single change of a file."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc

from hub.catalog.check import check_database, check_rows
from hub.catalog.engine import Catalog
from hub.config import HubSettings
from hub.jobs.check_layers import check_layers
from hub.jobs.parts import Parts
from hub.jobs.reaper import Reaper
from hub.jobs.receive_disk import upload
from hub.jobs.removals import remove_deleted_files
from hub.jobs.repositories import create_repository
from sendense.clusters import CLUSTER_BYTES
from sendense.v1 import backup_pb2 as pb
from tests.end_to_end.processes import wait_for
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm, Uploading, batches, raw_bytes
from tests.unit.hub.running_hub import FINAL, RunningHub, running

PLAN = b"p" * 16
WAIT_S = 20.0


def settings_in(folder: Path) -> HubSettings:
    """A hub's settings: catalog and repository lie in the folder."""
    return HubSettings(
        listen="127.0.0.1:0",
        catalog_url=f"sqlite:///{folder / 'catalog.db'}",
        state_dir=folder,
    )


def prepare(settings: HubSettings) -> None:
    """Migrate the catalog, make the repository "default" in the folder `repository`."""
    catalog = Catalog(settings.catalog_url)
    try:
        catalog.upgrade()
        path = str(settings.state_dir / "repository")
        create_repository(Parts(catalog), name="default", path=path, default=True)
    finally:
        catalog.close()


class Script:
    """What the agent does in each backup of the VM: frames with an ack each, a break in between."""

    def __init__(self, hub: RunningHub, agent: FakeAgent, sequence: int = 0) -> None:
        self.hub = hub
        self.agent = agent
        self.sequence = sequence  # of the change ids
        self.disks: dict[str, FakeDisk] = {}  # as they were, by job
        self.repair: Callable[[], None] = lambda: None  # ends a fault that lasts

    def start(self, **request: Any) -> str:
        """StartBackup; its agent has heard of it. Raises grpc.RpcError."""
        job_id = self.hub.start(**request).job_id
        while True:
            command = self.agent.next()
            if command.WhichOneof("command") == "start_job" and (
                command.start_job.job_id == job_id
            ):
                return job_id

    def open(self, job_id: str, disk: FakeDisk) -> None:
        """The snapshot is there; wait for the plan. Raises _JobOver."""
        self.agent.open_job(job_id, [disk])
        while True:
            command = self.agent.next()
            kind = command.WhichOneof("command")
            if kind == "job_plan" and command.job_plan.job_id == job_id:
                return
            if kind in ("cancel_job", "job_closed") and getattr(command, kind).job_id == job_id:
                raise JobOver(job_id)

    def upload(self, job_id: str, content: str, *, until: int | None = None) -> int:
        """Send what is not durable yet, waiting for each ack; so many frames of it or to the end.

        Returns the frames that were durable before. Raises grpc.RpcError.
        """
        frames = batches(content)
        with Uploading(self.agent.channel) as up:
            planned = len(content) * CLUSTER_BYTES
            up.open(job_id, 0, bytes_planned=planned, plan_digest=PLAN)
            for answer in up.answers():
                kind = answer.WhichOneof("part")
                if kind == "sealed":
                    return len(frames)
                if kind == "opened":
                    opened = answer.opened
                    up.frames, up.clusters = opened.durable_frames, opened.durable_clusters
                    up.payload = opened.durable_payload_bytes
                    break
            durable = up.frames
            for number, frame in enumerate(frames[durable:until], start=durable + 1):
                up.frame(frame)
                up.acknowledged(number)
            if until is None:
                up.finish()
                up.sealed()
            return durable

    def finish(self, job_id: str) -> pb.Backup:
        """The agent is done; wait for the job's end.

        A repository that fails now costs nothing: the job is completed once it works again.
        """
        self.agent.send(job_uploaded={"job_id": job_id})
        parts = self.hub.parts

        def settled() -> bool:
            return self._is_over(job_id) or parts.completions.warnings(job_id) is not None

        wait_for("the job's end", settled)
        if not self._is_over(job_id):
            self.repair()
            Reaper(parts).sweep()
        return self.hub.wait(job_id)

    def _is_over(self, job_id: str) -> bool:
        return self.hub.get(job_id).status in FINAL

    def disk(self, content: str) -> FakeDisk:
        """The disk as it is at the next snapshot."""
        self.sequence += 1
        return FakeDisk(content, change_id=f"52 aa/{self.sequence}")


class JobOver(Exception):
    """The hub ended the job before the agent was done with it."""


class SmallHub(Script):
    """The script, with whole backups and what must hold after each."""

    def backup(self, content: str, **request: Any) -> str:
        """A backup that succeeds; its upload breaks off once, and goes on. Returns the job's id."""
        done = self.try_backup(content, **request)
        assert done is not None
        assert done.status == pb.BACKUP_STATUS_COMPLETED, done.error
        return done.job_id

    def try_backup(self, content: str, **request: Any) -> pb.Backup | None:
        """A backup to its end, whatever that is; None when it was not even started."""
        try:
            job_id = self.start(**request)
        except grpc.RpcError:
            return None
        try:
            self.disks[job_id] = self.disk(content)
            self.open(job_id, self.disks[job_id])
            self.upload(job_id, content, until=2)
            self.upload(job_id, content)
        except (grpc.RpcError, JobOver):
            return self.hub.wait(job_id)
        return self.finish(job_id)

    def assert_restores(self, job_id: str, content: str) -> None:
        """Byte for byte, and qemu-img finds the layer sound."""
        expected = raw_bytes(content)
        assert self.hub.restored(job_id) == expected
        layer = self.hub.repository_folder() / self.hub.get(job_id).disks[0].qcow2_path
        done = subprocess.run(
            ["qemu-img", "check", layer], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def expected_files(self) -> set[str]:
        """What the restore points consist of."""
        answer = self.hub.backups.ListBackups(pb.ListBackupsRequest(), timeout=WAIT_S)
        files: set[str] = set()
        for job in answer.backups:
            if job.status == pb.BACKUP_STATUS_COMPLETED:
                for disk in self.hub.get(job.job_id).disks:
                    layer = disk.qcow2_path
                    files |= {layer, layer.removesuffix(".qcow2") + ".manifest"}
                    files.add(f"{job.context_id}/{job.job_id}/job.json")
        return files

    def assert_in_order(self) -> None:
        """Nothing is left of jobs that ended, the restore points are whole, the catalog is."""
        self._wait_for_files()
        assert findings(self.hub.parts.catalog) == []

    def _wait_for_files(self) -> None:
        """The removal of what a job left may be under way; one that failed is begun again."""
        deadline, pause = time.monotonic() + WAIT_S, threading.Event()
        found: set[str] | None = None
        while found != (expected := self.expected_files()):
            assert time.monotonic() < deadline, (found, expected)
            remove_deleted_files(self.hub.parts)
            # A folder may go while it is being listed.
            with suppress(FileNotFoundError):
                found = self.hub.files()
            pause.wait(0.01)


def findings(catalog: Catalog) -> list[Any]:
    """What `sendense-hub db check` would find."""
    return [*check_database(catalog), *check_rows(catalog)[1], *check_layers(catalog).findings]


@contextmanager
def small_hub(folder: Path, job_ids: Sequence[str] = ()) -> Iterator[SmallHub]:
    """A hub whose files lie in the folder; each frame is acknowledged by itself.

    `job_ids` are the jobs that the agent holds when it connects.
    """
    settings = settings_in(folder)
    if not (folder / "catalog.db").exists():
        prepare(settings)
    with (
        patch.object(upload, "SYNC_BYTES", 1),
        running(settings) as hub,
        FakeAgent(hub.address, "lab", [FakeVm()], job_ids=job_ids) as agent,
    ):
        yield SmallHub(hub, agent.connect())
