"""A running hub as tests see it: through its API, and its catalog and files where that matters."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from hub.catalog.repositories import find_repository
from hub.config import HubSettings
from hub.main import Hub
from sendense.clusters import CLUSTER_BYTES
from sendense.codec import ClusterDecoder, from_frame
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import restore_pb2
from sendense.v1.backup_pb2_grpc import BackupServiceStub
from sendense.v1.context_pb2_grpc import ContextServiceStub, DiskServiceStub
from sendense.v1.inventory_pb2_grpc import AgentServiceStub, InventoryServiceStub
from sendense.v1.repository_pb2_grpc import RepositoryServiceStub
from sendense.v1.restore_pb2_grpc import RestoreServiceStub

FINAL = (pb.BACKUP_STATUS_COMPLETED, pb.BACKUP_STATUS_FAILED, pb.BACKUP_STATUS_CANCELLED)


class RunningHub:
    def __init__(self, hub: Hub, channel: grpc.Channel) -> None:
        self.hub = hub
        self.parts = hub.parts
        self.address = str(hub.address)
        self.channel = channel
        self.backups = BackupServiceStub(channel)
        self.contexts = ContextServiceStub(channel)
        self.disks = DiskServiceStub(channel)
        self.agents = AgentServiceStub(channel)
        self.inventory = InventoryServiceStub(channel)
        self.repositories = RepositoryServiceStub(channel)
        self.restores = RestoreServiceStub(channel)

    def start(self, vm: str = "pgtest1", **more: Any) -> pb.Backup:
        """StartBackup."""
        return self.backups.StartBackup(pb.StartBackupRequest(vm=vm, **more), timeout=20).backup

    def get(self, job_id: str) -> pb.Backup:
        """GetBackup."""
        return self.backups.GetBackup(pb.GetBackupRequest(job_id=job_id), timeout=20).backup

    def cancel(self, job_id: str, reason: str = "") -> pb.Backup:
        """CancelBackup."""
        request = pb.CancelBackupRequest(job_id=job_id, reason=reason)
        return self.backups.CancelBackup(request, timeout=20).backup

    def wait(self, job_id: str, until: Callable[[pb.Backup], bool] | None = None) -> pb.Backup:
        """Watch the job until its end, or until it looks as wanted."""
        call = self.backups.WatchBackup(pb.WatchBackupRequest(job_id=job_id), timeout=30)
        last = pb.Backup()
        for response in call:
            last = response.backup
            if until is not None and until(last):
                call.cancel()
                return last
        assert until is None, f"the job ended before it looked as wanted: {last}"
        assert last.status in FINAL
        return last

    def restored(self, job_id: str, disk_index: int = 0) -> bytes:
        """The disk's bytes, decoded and checked."""
        request = restore_pb2.RestoreDiskRequest(job_id=job_id, disk_index=disk_index)
        parts: Iterator[restore_pb2.RestoreDiskResponse] = self.restores.RestoreDisk(
            request, timeout=30
        )
        header = next(parts).header
        clusters = -(-header.capacity_bytes // CLUSTER_BYTES)
        content = bytearray(clusters * CLUSTER_BYTES)
        decoder, after, count, payload = ClusterDecoder(), -1, 0, 0
        for part in parts:
            if part.WhichOneof("part") == "trailer":
                assert (part.trailer.cluster_count, part.trailer.payload_bytes) == (count, payload)
                assert (header.cluster_count, header.payload_bytes) == (count, payload)
                return bytes(content[: header.capacity_bytes])
            batch = from_frame(part.frame, cluster_limit=clusters, after_cluster=after)
            after = batch.last_cluster
            count += len(batch)
            payload += batch.payload_bytes
            for number, data in decoder.decode(batch):
                content[number * CLUSTER_BYTES : (number + 1) * CLUSTER_BYTES] = data
        raise AssertionError("the restore ended without a trailer")

    def wait_for_files(self, wanted: set[str]) -> None:
        """Wait until the repository has these files: they go after the job's end is committed."""
        deadline, pause = time.monotonic() + 20, threading.Event()
        while True:
            # A folder may go while it is being listed.
            with suppress(FileNotFoundError):
                found = self.files()
                if found == wanted:
                    return
                assert time.monotonic() < deadline, found
            pause.wait(0.01)

    def wait_until_no_upload(self) -> None:
        """Wait until the hub let go of all uploads."""
        deadline, pause = time.monotonic() + 20, threading.Event()
        while self.parts.uploads.count():
            assert time.monotonic() < deadline, "the upload goes on"
            pause.wait(0.01)

    def wait_until_away(self, site: str) -> None:
        """Wait until the hub let go of the site's agent."""
        deadline, pause = time.monotonic() + 20, threading.Event()
        while self.parts.agents.presence(site).connected:
            assert time.monotonic() < deadline, "the agent is still connected"
            pause.wait(0.01)

    def repository_folder(self, name: str = "default") -> Path:
        """Where a repository lies."""
        with self.parts.catalog.read() as session:
            return Path(find_repository(session, name).path)

    def files(self, name: str = "default") -> set[str]:
        """All files of a repository but its mark, relative."""
        folder = self.repository_folder(name)
        return {
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file() and path.name != "sendense-repository.json"
        }


@contextmanager
def running(settings: HubSettings) -> Iterator[RunningHub]:
    """A hub of these settings, until the block ends."""
    with Hub(settings) as hub, grpc.insecure_channel(str(hub.address)) as channel:
        yield RunningHub(hub, channel)


def refused(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Status, reason and metadata of a refused call."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no details: {error}"
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return error.code(), info.reason, dict(info.metadata)


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Status, reason and metadata with which the call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return refused(caught.value)
