"""Backups: start, look at, follow, end, repeat and delete jobs."""

import time
import uuid
from collections.abc import Iterator
from datetime import datetime

from sendense.api.connection import Connection
from sendense.models import BackupOrder, BackupStatus, BackupType
from sendense.requests import build, choice, moment
from sendense.v1 import backup_pb2, backup_pb2_grpc
from sendense.watching import watch_backup


class BackupCalls(Connection):
    """BackupService."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        super().__init__(address, timeout_s=timeout_s)
        self._backups = backup_pb2_grpc.BackupServiceStub(self._channel)

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

        Raises NotFound (VM_NOT_FOUND, SITE_NOT_FOUND, REPOSITORY_NOT_FOUND),
        FailedPrecondition (VM_AMBIGUOUS, REPOSITORY_DISABLED, AGENT_DRAINING),
        Unavailable (AGENT_AWAY), AlreadyExists (BACKUP_RUNNING).
        """
        request = build(
            backup_pb2.StartBackupRequest,
            vm=vm,
            site=site,
            repository=repository,
            backup_type=choice("backup_type", BackupType, backup_type),
            request_id=request_id or str(uuid.uuid4()),
            quiesce=quiesce,
        )
        return self._call(self._backups.StartBackup, request).backup

    def get_backup(self, job_id: str) -> backup_pb2.Backup:
        """The job with its disks. Raises NotFound (JOB_NOT_FOUND)."""
        request = build(backup_pb2.GetBackupRequest, job_id=job_id)
        return self._call(self._backups.GetBackup, request).backup

    def list_backups(
        self,
        *,
        vm_name: str = "",
        context_id: str = "",
        repository: str = "",
        status: BackupStatus = BackupStatus.UNSPECIFIED,
        backup_type: BackupType = BackupType.UNSPECIFIED,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        order: BackupOrder = BackupOrder.UNSPECIFIED,
    ) -> Iterator[backup_pb2.Backup]:
        """Jobs, newest first unless asked otherwise, without their disks.

        Pages are fetched as they are needed. Jobs created at `created_after` are
        among them, those created at `created_before` are not; both times have a
        time zone.

        Raises NotFound when a filter names what the hub does not know, and
        InvalidArgument.
        """
        request = build(
            backup_pb2.ListBackupsRequest,
            vm_name=vm_name,
            context_id=context_id,
            repository=repository,
            status=choice("status", BackupStatus, status),
            backup_type=choice("backup_type", BackupType, backup_type),
            created_after=moment("created_after", created_after),
            created_before=moment("created_before", created_before),
            order=choice("order", BackupOrder, order),
        )
        return self._pages(self._backups.ListBackups, request, lambda page: page.backups)

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
        request = build(backup_pb2.CancelBackupRequest, job_id=job_id, reason=reason)
        return self._call(self._backups.CancelBackup, request).backup

    def retry_backup(self, job_id: str, *, request_id: str | None = None) -> backup_pb2.Backup:
        """Start a new job with what a failed or cancelled one was asked for, and return it.

        `request_id` is that of `start_backup`. Raises NotFound (JOB_NOT_FOUND),
        FailedPrecondition (JOB_NOT_UNSUCCESSFUL), and what `start_backup` raises.
        """
        request = build(
            backup_pb2.RetryBackupRequest, job_id=job_id, request_id=request_id or str(uuid.uuid4())
        )
        return self._call(self._backups.RetryBackup, request).backup

    def delete_backup(self, job_id: str, *, cascade: bool = False) -> backup_pb2.DeletedBackups:
        """Delete an ended job and its files; with `cascade` also the jobs that build on it.

        Raises NotFound (JOB_NOT_FOUND), FailedPrecondition (JOB_HAS_DEPENDANTS with
        metadata `dependants`, JOB_NOT_ENDED, RESTORE_RUNNING); nothing is deleted then.
        """
        request = build(backup_pb2.DeleteBackupRequest, job_id=job_id, cascade=cascade)
        return self._call(self._backups.DeleteBackup, request).deleted
