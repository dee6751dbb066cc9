"""Catalog rows as messages."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext
from hub.jobs.board import DiskProgress
from hub.jobs.states import BackupType, Consistency, Status
from sendense.v1 import backup_pb2, context_pb2
from shared.errors import InvalidArgument

STATUS: Final = MappingProxyType(
    {
        Status.PENDING: backup_pb2.BACKUP_STATUS_PENDING,
        Status.RUNNING: backup_pb2.BACKUP_STATUS_RUNNING,
        Status.COMPLETED: backup_pb2.BACKUP_STATUS_COMPLETED,
        Status.FAILED: backup_pb2.BACKUP_STATUS_FAILED,
        Status.CANCELLED: backup_pb2.BACKUP_STATUS_CANCELLED,
    }
)
TYPE: Final = MappingProxyType(
    {
        None: backup_pb2.BACKUP_TYPE_UNSPECIFIED,
        BackupType.FULL: backup_pb2.BACKUP_TYPE_FULL,
        BackupType.INCREMENTAL: backup_pb2.BACKUP_TYPE_INCREMENTAL,
    }
)
LEVEL: Final = MappingProxyType(
    {
        None: backup_pb2.CONSISTENCY_LEVEL_UNSPECIFIED,
        Consistency.CRASH: backup_pb2.CONSISTENCY_LEVEL_CRASH,
        Consistency.FILE_SYSTEM: backup_pb2.CONSISTENCY_LEVEL_FILE_SYSTEM,
    }
)
NO_PROGRESS: Final[Mapping[int, DiskProgress]] = MappingProxyType({})


def status_asked(value: backup_pb2.BackupStatus) -> Status | None:
    """A status filter; None means any. Raises InvalidArgument."""
    if value == backup_pb2.BACKUP_STATUS_UNSPECIFIED:
        return None
    for status, number in STATUS.items():
        if number == value:
            return status
    raise InvalidArgument("status", f"{value} is no status")


def type_asked(value: backup_pb2.BackupType) -> BackupType | None:
    """A wished type; None means unspecified. Raises InvalidArgument."""
    for kind, number in TYPE.items():
        if number == value:
            return kind
    raise InvalidArgument("backup_type", f"{value} is no backup type")


def timestamp(at: datetime | None) -> Timestamp | None:
    """None stays unset."""
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at)
    return message


def backup_message(
    job: BackupJob,
    *,
    with_disks: bool,
    progress: Mapping[int, DiskProgress] = NO_PROGRESS,
) -> backup_pb2.Backup:
    """A job; the numbers of disks that are moving come from `progress`."""
    error = None
    if job.status in (Status.FAILED, Status.CANCELLED):
        error = backup_pb2.BackupError(
            reason=job.error_reason or "", message=job.error_message or ""
        )
    message = backup_pb2.Backup(
        job_id=job.id,
        context_id=job.vm_backup_context_id,
        vm_name=job.context.vm_name,
        site=job.context.site,
        repository_id=job.repository_id,
        repository_name=job.context.repository.name,
        backup_type=TYPE[job.backup_type],
        requested_type=TYPE[job.requested_type],
        status=STATUS[job.status],
        consistency_level=LEVEL[job.consistency],
        created_at=timestamp(job.created_at),
        started_at=timestamp(job.started_at),
        completed_at=timestamp(job.completed_at),
        disk_count=job.disk_count,
        bytes_planned=job.bytes_planned,
        bytes_read=job.bytes_read,
        bytes_transferred=job.bytes_transferred,
        bytes_stored=job.bytes_stored,
        warnings=[
            backup_pb2.BackupWarning(
                code=one["code"], message=one["message"], disk_label=one.get("disk_label", "")
            )
            for one in job.warnings
        ],
        error=error,
    )
    if with_disks:
        message.disks.extend(
            disk_message(disk, progress.get(disk.disk_index)) for disk in job.disks
        )
        if job.status in (Status.PENDING, Status.RUNNING):
            # Not summed in the row before the job ended.
            message.bytes_planned = sum(disk.bytes_planned for disk in message.disks)
            message.bytes_read = sum(disk.bytes_read for disk in message.disks)
            message.bytes_transferred = sum(disk.bytes_transferred for disk in message.disks)
            message.bytes_stored = sum(disk.bytes_stored for disk in message.disks)
    return message


def disk_message(disk: BackupDisk, progress: DiskProgress | None = None) -> backup_pb2.BackupDisk:
    """A disk of a job; `base` must be loaded."""
    error = None
    if disk.status in (Status.FAILED, Status.CANCELLED):
        error = backup_pb2.BackupError(
            reason=disk.error_reason or "", message=disk.error_message or ""
        )
    moving = progress if disk.sealed_at is None and disk.status is Status.RUNNING else None
    return backup_pb2.BackupDisk(
        disk_id=disk.id,
        job_id=disk.backup_job_id,
        disk_index=disk.disk_index,
        vmware_disk_key=disk.vmware_disk_key,
        disk_uuid=disk.disk_uuid,
        label=disk.label,
        capacity_bytes=disk.capacity_bytes,
        backup_type=TYPE[disk.backup_type],
        base_disk_id=disk.base_disk_id or 0,
        base_job_id=disk.base.backup_job_id if disk.base is not None else "",
        disk_change_id=disk.disk_change_id,
        qcow2_path=disk.qcow2_path or "",
        bytes_planned=moving.bytes_planned if moving else disk.bytes_planned,
        bytes_read=moving.bytes_read if moving else disk.bytes_read,
        bytes_transferred=moving.bytes_transferred if moving else disk.bytes_transferred,
        bytes_stored=disk.bytes_stored,
        root_digest=disk.root_digest or "",
        status=STATUS[disk.status],
        error=error,
        completed_at=timestamp(disk.completed_at),
    )


def context_message(context: VmBackupContext) -> context_pb2.BackupContext:
    """A context."""
    return context_pb2.BackupContext(
        context_id=context.context_id,
        vm_name=context.vm_name,
        vmware_vm_id=context.vmware_vm_id,
        instance_uuid=context.instance_uuid,
        site=context.site,
        repository_id=context.repository_id,
        repository_name=context.repository.name,
        total_backups_run=context.total_backups_run,
        successful_backups=context.successful_backups,
        failed_backups=context.failed_backups,
        last_backup_id=context.last_backup_id or "",
        last_backup_type=TYPE[context.last_backup_type],
        last_backup_at=timestamp(context.last_backup_at),
        created_at=timestamp(context.created_at),
    )
