"""The client: one method per RPC that people and programs use."""

import time
import uuid
from collections.abc import Callable, Iterator
from os import PathLike
from types import TracebackType
from typing import Literal, Self, TypeVar

import grpc

from sendense import restore
from sendense.channel import open_channel
from sendense.errors import typed_errors
from sendense.models import BackupStatus, BackupType
from sendense.restore import RestoreProgress, RestoreResult
from sendense.v1 import (
    backup_pb2,
    backup_pb2_grpc,
    context_pb2,
    context_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    repository_pb2,
    repository_pb2_grpc,
)
from sendense.watching import watch_backup

DEFAULT_ADDRESS = "127.0.0.1:8443"
_PAGE_SIZE = 200

Response = TypeVar("Response")
Request = TypeVar("Request")


class Client:
    """A connection to one hub; a context manager, and safe to use from several threads.

    Every request ends within `timeout_s` seconds; streams (watch, restore) last
    as long as they deliver. Reads and `start_backup` are repeated a few times
    when the hub is briefly away. All methods raise `SendenseError` subclasses:
    HubUnavailable when the hub cannot be reached, InvalidArgument for values it
    cannot use, and those a method names.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = 30.0) -> None:
        """`address` is "host:port". Connects when first used. Raises InvalidArgument."""
        self.address = address
        self.timeout_s = timeout_s
        self._channel = open_channel(address)
        self._backups = backup_pb2_grpc.BackupServiceStub(self._channel)
        self._contexts = context_pb2_grpc.ContextServiceStub(self._channel)
        self._disks = context_pb2_grpc.DiskServiceStub(self._channel)
        self._repositories = repository_pb2_grpc.RepositoryServiceStub(self._channel)
        self._agents = inventory_pb2_grpc.AgentServiceStub(self._channel)
        self._inventory = inventory_pb2_grpc.InventoryServiceStub(self._channel)

    def close(self) -> None:
        """Close the connection; open streams end. May be called twice."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Backups

    def start_backup(
        self,
        vm: str,
        *,
        site: str = "",
        repository: str = "",
        backup_type: BackupType = BackupType.UNSPECIFIED,
        quiesce: bool = False,
        request_id: str | None = None,
    ) -> backup_pb2.Backup:
        """Start a backup of a VM and return its job, which then runs by itself.

        `vm` is a name, moref or instance uuid; `repository` a name or id, empty
        for the default. An incremental (or unspecified) backup becomes a full
        one where no base is usable. Repeating a call with the same `request_id`
        returns the same job; without one a new id is made.

        Raises NotFound (VM_NOT_FOUND, REPOSITORY_NOT_FOUND), FailedPrecondition
        (VM_AMBIGUOUS), Unavailable (AGENT_AWAY), AlreadyExists (BACKUP_RUNNING).
        """
        request = backup_pb2.StartBackupRequest(
            vm=vm,
            site=site,
            repository=repository,
            backup_type=f"BACKUP_TYPE_{BackupType(backup_type).name}",
            request_id=request_id or str(uuid.uuid4()),
            quiesce=quiesce,
        )
        return self._call(self._backups.StartBackup, request).backup

    def get_backup(self, job_id: str) -> backup_pb2.Backup:
        """The job with its disks. Raises NotFound (JOB_NOT_FOUND)."""
        request = backup_pb2.GetBackupRequest(job_id=job_id)
        return self._call(self._backups.GetBackup, request).backup

    def list_backups(
        self,
        *,
        vm_name: str = "",
        context_id: str = "",
        repository: str = "",
        status: BackupStatus = BackupStatus.UNSPECIFIED,
    ) -> Iterator[backup_pb2.Backup]:
        """Jobs, newest first, without their disks; pages are fetched as they are needed."""
        request = backup_pb2.ListBackupsRequest(
            vm_name=vm_name,
            context_id=context_id,
            repository=repository,
            status=f"BACKUP_STATUS_{BackupStatus(status).name}",
            page_size=_PAGE_SIZE,
        )
        while True:
            page = self._call(self._backups.ListBackups, request)
            yield from page.backups
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def watch(self, job_id: str) -> Iterator[backup_pb2.Backup]:
        """The job now, then at every change, until its last state; survives a hub restart.

        Raises NotFound (JOB_NOT_FOUND), HubUnavailable.
        """
        return watch_backup(self._backups, self.address, job_id)

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> backup_pb2.Backup:
        """Wait until the job ended and return it, whether it completed, failed or was cancelled.

        Raises WaitTimeout after `timeout_s` seconds (None: no limit); the job goes on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        last: backup_pb2.Backup | None = None
        for job in watch_backup(self._backups, self.address, job_id, deadline):
            last = job
        assert last is not None  # a watch yields at least the last state
        return last

    def cancel_backup(self, job_id: str, *, reason: str = "") -> backup_pb2.Backup:
        """Ask for the end of a job; an ended one stays as it is. Raises NotFound."""
        request = backup_pb2.CancelBackupRequest(job_id=job_id, reason=reason)
        return self._call(self._backups.CancelBackup, request).backup

    # Contexts and disks

    def get_context(self, context_id: str) -> context_pb2.BackupContext:
        """One VM in one repository. Raises NotFound (CONTEXT_NOT_FOUND)."""
        request = context_pb2.GetContextRequest(context_id=context_id)
        return self._call(self._contexts.GetContext, request).context

    def list_contexts(
        self, *, vm_name: str = "", repository: str = ""
    ) -> Iterator[context_pb2.BackupContext]:
        """Contexts ordered by VM name; pages are fetched as they are needed."""
        request = context_pb2.ListContextsRequest(
            vm_name=vm_name, repository=repository, page_size=_PAGE_SIZE
        )
        while True:
            page = self._call(self._contexts.ListContexts, request)
            yield from page.contexts
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def get_disk(self, job_id: str, disk_index: int) -> context_pb2.GetDiskResponse:
        """A disk of a job, as `disk`, and the rows down to its full, as `chain`.

        Raises NotFound (JOB_NOT_FOUND, DISK_NOT_FOUND).
        """
        request = context_pb2.GetDiskRequest(job_id=job_id, disk_index=disk_index)
        return self._call(self._disks.GetDisk, request)

    def list_disks(
        self, *, context_id: str = "", job_id: str = ""
    ) -> Iterator[backup_pb2.BackupDisk]:
        """Disks of a context or of a job (give exactly one), newest job first."""
        request = context_pb2.ListDisksRequest(
            context_id=context_id, job_id=job_id, page_size=_PAGE_SIZE
        )
        while True:
            page = self._call(self._disks.ListDisks, request)
            yield from page.disks
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    # Restore

    def restore_disk(
        self,
        job_id: str,
        disk_index: int,
        path: str | PathLike[str],
        format: Literal["raw", "qcow2"] = "raw",
        *,
        overwrite: bool = False,
        progress: Callable[[RestoreProgress], None] | None = None,
        threads: int | None = None,
    ) -> RestoreResult:
        """Write one disk of a restore point to a local file: sparse raw, or compressed QCOW2.

        Every cluster and the whole disk are checked against their digests, and
        the file is synced, before it gets the name `path`; until then, and
        after any error, what stood under that name is untouched. `progress` is
        called from the calling thread. `threads` decode (None: one per core,
        at most four).

        Raises NotFound, FailedPrecondition (NOT_A_RESTORE_POINT), DataLoss when
        anything does not match, TargetExists, TargetUnusable, TargetWriteFailed.
        """
        return restore.restore_disk(
            self.address,
            job_id,
            disk_index,
            path,
            format,
            overwrite=overwrite,
            progress=progress,
            threads=threads,
        )

    # Repositories

    def create_repository(
        self, name: str, path: str | PathLike[str], *, make_default: bool = False
    ) -> repository_pb2.Repository:
        """Make (or adopt) a repository folder on the hub; `path` is absolute, there.

        Raises AlreadyExists (REPOSITORY_EXISTS), FailedPrecondition (REPOSITORY_UNUSABLE).
        """
        request = repository_pb2.CreateRepositoryRequest(
            name=name, path=str(path), make_default=make_default
        )
        return self._call(self._repositories.CreateRepository, request).repository

    def get_repository(self, repository: str) -> repository_pb2.Repository:
        """A repository by name or id. Raises NotFound (REPOSITORY_NOT_FOUND)."""
        request = repository_pb2.GetRepositoryRequest(repository=repository)
        return self._call(self._repositories.GetRepository, request).repository

    def list_repositories(self) -> list[repository_pb2.Repository]:
        """All repositories ordered by name."""
        request = repository_pb2.ListRepositoriesRequest()
        return list(self._call(self._repositories.ListRepositories, request).repositories)

    # Agents and what they see

    def list_agents(self) -> list[inventory_pb2.Agent]:
        """All agents ever registered, ordered by site."""
        request = inventory_pb2.ListAgentsRequest()
        return list(self._call(self._agents.ListAgents, request).agents)

    def get_agent(self, site: str) -> inventory_pb2.Agent:
        """The agent of one site. Raises NotFound (AGENT_NOT_FOUND)."""
        request = inventory_pb2.GetAgentRequest(site=site)
        return self._call(self._agents.GetAgent, request).agent

    def list_virtual_machines(
        self, *, site: str = "", name: str = ""
    ) -> list[inventory_pb2.VirtualMachine]:
        """VMs as the agents last reported them, ordered by name and site."""
        request = inventory_pb2.ListVirtualMachinesRequest(site=site, name=name)
        return list(self._call(self._inventory.ListVirtualMachines, request).virtual_machines)

    def _call(
        self, method: "grpc.UnaryUnaryMultiCallable[Request, Response]", request: Request
    ) -> Response:
        with typed_errors(self.address):
            return method(request, timeout=self.timeout_s)
