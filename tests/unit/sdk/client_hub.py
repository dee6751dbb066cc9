"""A hub for the client's tests: real gRPC on a real socket, answers from memory."""

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import grpc

from sendense.clusters import CLUSTER_BYTES, REGION_CLUSTERS
from sendense.codec import ClusterEncoder
from sendense.digests import DiskDigests
from sendense.v1 import (
    backup_pb2,
    backup_pb2_grpc,
    context_pb2,
    context_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    repository_pb2,
    repository_pb2_grpc,
    restore_pb2,
    restore_pb2_grpc,
)
from shared.errors import SendenseError
from shared.grpc_errors import abort_with

Part = restore_pb2.RestoreDiskResponse
Failure = grpc.StatusCode | SendenseError


@dataclass(eq=False)
class _Refused(SendenseError):
    text: ClassVar[str] = "{sentence}"

    sentence: str


def refused(
    sentence: str,
    *,
    status: grpc.StatusCode = grpc.StatusCode.NOT_FOUND,
    code: str = "JOB_NOT_FOUND",
) -> SendenseError:
    """An error as the hub sends them, with whatever code and status a test needs."""
    return type("_RefusedSo", (_Refused,), {"status": status, "code": code})(sentence)


def draw(layout: str, *, seed: int = 1, cut_bytes: int = 0) -> bytes:
    """A disk as text: a letter is a compressible cluster, a digit a random one, a dot a hole.

    The disk ends `cut_bytes` before the end of its last cluster.
    """
    clusters = []
    for at, letter in enumerate(layout):
        if letter == ".":
            clusters.append(bytes(CLUSTER_BYTES))
        elif letter.isdigit():
            clusters.append(random.Random(f"{seed} {at} {letter}").randbytes(CLUSTER_BYTES))
        else:
            clusters.append(f"{letter}{at}-".encode().ljust(16, b"#") * (CLUSTER_BYTES // 16))
    content = b"".join(clusters)
    return content[: len(content) - cut_bytes]


def stored(
    pieces: bytes | dict[int, bytes],
    *,
    capacity_bytes: int | None = None,
    job_id: str = "job-1",
    disk_index: int = 0,
    frame_clusters: int = 4,
) -> list[Part]:
    """The restore stream of a disk: its content, or {cluster number: consecutive clusters}."""
    if isinstance(pieces, bytes):
        pieces = {0: pieces}
    capacity = capacity_bytes or max(n * CLUSTER_BYTES + len(data) for n, data in pieces.items())
    encoder, digests = ClusterEncoder(), DiskDigests(capacity)
    frames = []
    clusters = payload = 0
    for first, data in sorted(pieces.items()):
        at = 0
        while at < len(data):
            number = first + at // CLUSTER_BYTES
            room = REGION_CLUSTERS - number % REGION_CLUSTERS
            length = min(frame_clusters, room) * CLUSTER_BYTES
            batch = encoder.encode(number, data[at : at + length], keep_zeros=False)
            at += length
            if len(batch) == 0:
                continue
            frames.append(Part(frame=batch.to_frame()))
            clusters += len(batch)
            payload += batch.payload_bytes
            for i, n in enumerate(batch.numbers.tolist()):
                digests.add(n, batch.digests[i * 16 : i * 16 + 16])
    header = restore_pb2.RestoreHeader(
        job_id=job_id,
        disk_index=disk_index,
        capacity_bytes=capacity,
        root_digest=digests.finish()[1],
        cluster_count=clusters,
        payload_bytes=payload,
        vm_name="pgtest1",
        disk_label="Hard disk 1",
    )
    trailer = restore_pb2.RestoreTrailer(cluster_count=clusters, payload_bytes=payload)
    return [Part(header=header), *frames, Part(trailer=trailer)]


@dataclass
class Seen:
    """One request as it arrived."""

    rpc: str
    request: Any
    peer: str


@dataclass
class HubState:
    """What the hub answers; a test fills it."""

    backups: list[backup_pb2.Backup] = field(default_factory=list)
    contexts: list[context_pb2.BackupContext] = field(default_factory=list)
    disks: list[backup_pb2.BackupDisk] = field(default_factory=list)
    repositories: list[repository_pb2.Repository] = field(default_factory=list)
    agents: list[inventory_pb2.Agent] = field(default_factory=list)
    virtual_machines: list[inventory_pb2.VirtualMachine] = field(default_factory=list)
    # What the next calls of an RPC fail with, one each.
    failures: dict[str, list[Failure]] = field(default_factory=lambda: defaultdict(list))
    # What each further WatchBackup sends: states, then perhaps a failure.
    watches: list[Iterable[backup_pb2.Backup | Failure]] = field(default_factory=list)
    restore: Callable[[], Iterable[Part | Failure]] = list
    seen: list[Seen] = field(default_factory=list)
    # RPCs that answer only when `released`; `held` is set when one waits.
    hold: set[str] = field(default_factory=set)
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    stream_ended: threading.Event = field(default_factory=threading.Event)

    def requests(self, rpc: str) -> list[Any]:
        """What was asked of one RPC."""
        return [item.request for item in self.seen if item.rpc == rpc]

    def enter(self, rpc: str, request: Any, context: grpc.ServicerContext) -> None:
        """Record a call, hold it, fail it, as the test said."""
        kept = type(request)()
        kept.CopyFrom(request)
        self.seen.append(Seen(rpc, kept, context.peer()))
        if rpc in self.hold:
            self.held.set()
            self.released.wait(30)
        if self.failures[rpc]:
            fail(context, self.failures[rpc].pop(0))

    def page(self, items: list[Any], request: Any) -> tuple[list[Any], str]:
        """The page asked for, and the token of the next one."""
        start = int(request.page_token or 0)
        end = start + (request.page_size or 100)
        return items[start:end], str(end) if end < len(items) else ""

    def find(self, items: list[Any], name: str, value: str, code: str) -> Callable[..., Any]:
        def found(context: grpc.ServicerContext) -> Any:
            for item in items:
                if getattr(item, name) == value:
                    return item
            return fail(context, refused(f"{name} {value} does not exist", code=code))

        return found


def fail(context: grpc.ServicerContext, failure: Failure) -> None:
    """End an RPC as the real hub would, or as a proxy that knows nothing of Sendense would."""
    if isinstance(failure, grpc.StatusCode):
        context.abort(failure, f"plain {failure.name}")
    abort_with(context, failure)


class _Backups(backup_pb2_grpc.BackupServiceServicer):
    def __init__(self, state: HubState) -> None:
        self.state = state

    def _job(self, job_id: str, context: Any) -> backup_pb2.Backup:
        return self.state.find(self.state.backups, "job_id", job_id, "JOB_NOT_FOUND")(context)

    def StartBackup(self, request: Any, context: Any) -> Any:
        self.state.enter("StartBackup", request, context)
        job = backup_pb2.Backup(job_id=f"backup-{request.vm}-1", vm_name=request.vm, status=1)
        self.state.backups.insert(0, job)
        return backup_pb2.StartBackupResponse(backup=job)

    def GetBackup(self, request: Any, context: Any) -> Any:
        self.state.enter("GetBackup", request, context)
        return backup_pb2.GetBackupResponse(backup=self._job(request.job_id, context))

    def ListBackups(self, request: Any, context: Any) -> Any:
        self.state.enter("ListBackups", request, context)
        page, token = self.state.page(self.state.backups, request)
        return backup_pb2.ListBackupsResponse(backups=page, next_page_token=token)

    def WatchBackup(self, request: Any, context: Any) -> Iterator[Any]:
        context.add_callback(self.state.stream_ended.set)
        self.state.enter("WatchBackup", request, context)
        script = self.state.watches.pop(0) if self.state.watches else ()
        for item in script:
            if isinstance(item, backup_pb2.Backup):
                yield backup_pb2.WatchBackupResponse(backup=item)
            else:
                fail(context, item)

    def CancelBackup(self, request: Any, context: Any) -> Any:
        self.state.enter("CancelBackup", request, context)
        return backup_pb2.CancelBackupResponse(backup=self._job(request.job_id, context))


class _Places(context_pb2_grpc.ContextServiceServicer, context_pb2_grpc.DiskServiceServicer):
    def __init__(self, state: HubState) -> None:
        self.state = state

    def GetContext(self, request: Any, context: Any) -> Any:
        self.state.enter("GetContext", request, context)
        state = self.state
        found = state.find(state.contexts, "context_id", request.context_id, "CONTEXT_NOT_FOUND")
        return context_pb2.GetContextResponse(context=found(context))

    def ListContexts(self, request: Any, context: Any) -> Any:
        self.state.enter("ListContexts", request, context)
        page, token = self.state.page(self.state.contexts, request)
        return context_pb2.ListContextsResponse(contexts=page, next_page_token=token)

    def GetDisk(self, request: Any, context: Any) -> Any:
        self.state.enter("GetDisk", request, context)
        chain = [d for d in self.state.disks if d.disk_index == request.disk_index]
        if not chain:
            fail(context, refused("no such disk", code="DISK_NOT_FOUND"))
        return context_pb2.GetDiskResponse(disk=chain[0], chain=chain)

    def ListDisks(self, request: Any, context: Any) -> Any:
        self.state.enter("ListDisks", request, context)
        page, token = self.state.page(self.state.disks, request)
        return context_pb2.ListDisksResponse(disks=page, next_page_token=token)


class _Repositories(repository_pb2_grpc.RepositoryServiceServicer):
    def __init__(self, state: HubState) -> None:
        self.state = state

    def CreateRepository(self, request: Any, context: Any) -> Any:
        self.state.enter("CreateRepository", request, context)
        made = repository_pb2.Repository(
            repository_id="repo-1", name=request.name, path=request.path
        )
        self.state.repositories.append(made)
        return repository_pb2.CreateRepositoryResponse(repository=made)

    def GetRepository(self, request: Any, context: Any) -> Any:
        self.state.enter("GetRepository", request, context)
        state = self.state
        found = state.find(state.repositories, "name", request.repository, "REPOSITORY_NOT_FOUND")
        return repository_pb2.GetRepositoryResponse(repository=found(context))

    def ListRepositories(self, request: Any, context: Any) -> Any:
        self.state.enter("ListRepositories", request, context)
        return repository_pb2.ListRepositoriesResponse(repositories=self.state.repositories)


class _Inventory(
    inventory_pb2_grpc.AgentServiceServicer, inventory_pb2_grpc.InventoryServiceServicer
):
    def __init__(self, state: HubState) -> None:
        self.state = state

    def ListAgents(self, request: Any, context: Any) -> Any:
        self.state.enter("ListAgents", request, context)
        return inventory_pb2.ListAgentsResponse(agents=self.state.agents)

    def GetAgent(self, request: Any, context: Any) -> Any:
        self.state.enter("GetAgent", request, context)
        found = self.state.find(self.state.agents, "site", request.site, "AGENT_NOT_FOUND")
        return inventory_pb2.GetAgentResponse(agent=found(context))

    def ListVirtualMachines(self, request: Any, context: Any) -> Any:
        self.state.enter("ListVirtualMachines", request, context)
        return inventory_pb2.ListVirtualMachinesResponse(
            virtual_machines=self.state.virtual_machines
        )


class _Restores(restore_pb2_grpc.RestoreServiceServicer):
    def __init__(self, state: HubState) -> None:
        self.state = state

    def RestoreDisk(self, request: Any, context: Any) -> Iterator[Any]:
        context.add_callback(self.state.stream_ended.set)
        self.state.enter("RestoreDisk", request, context)
        for item in self.state.restore():
            if isinstance(item, Part):
                yield item
            else:
                fail(context, item)


class ClientHub:
    """The server; a context manager. `state` is what it answers."""

    def __init__(self) -> None:
        self.state = HubState()
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        backup_pb2_grpc.add_BackupServiceServicer_to_server(_Backups(self.state), self._server)
        places = _Places(self.state)
        context_pb2_grpc.add_ContextServiceServicer_to_server(places, self._server)
        context_pb2_grpc.add_DiskServiceServicer_to_server(places, self._server)
        repositories = _Repositories(self.state)
        repository_pb2_grpc.add_RepositoryServiceServicer_to_server(repositories, self._server)
        inventory = _Inventory(self.state)
        inventory_pb2_grpc.add_AgentServiceServicer_to_server(inventory, self._server)
        inventory_pb2_grpc.add_InventoryServiceServicer_to_server(inventory, self._server)
        restore_pb2_grpc.add_RestoreServiceServicer_to_server(_Restores(self.state), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.state.released.set()
        self._server.stop(grace=0).wait(10)
