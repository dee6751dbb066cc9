"""Catalog rows as messages."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from hub.catalog.change_ids import DiskChangeId
from hub.catalog.lists import JobOrder
from hub.catalog.models import BackupDisk, BackupJob, VmBackupContext
from hub.jobs.board import DiskProgress
from hub.jobs.chains import Layer
from hub.jobs.delete import Deleted
from hub.jobs.queue import Place
from hub.jobs.read_methods import READ_METHOD
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
ORDER: Final[Mapping[int, JobOrder]] = MappingProxyType(
    {
        backup_pb2.BACKUP_ORDER_UNSPECIFIED: JobOrder.NEWEST_FIRST,
        backup_pb2.BACKUP_ORDER_NEWEST_FIRST: JobOrder.NEWEST_FIRST,
        backup_pb2.BACKUP_ORDER_OLDEST_FIRST: JobOrder.OLDEST_FIRST,
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


def order_asked(value: backup_pb2.BackupOrder) -> JobOrder:
    """A wished order; unspecified means newest first. Raises InvalidArgument."""
    order = ORDER.get(value)
    if order is None:
        raise InvalidArgument("order", f"{value} is no order")
    return order


def time_asked(request: Message, field: str) -> datetime | None:
    """A moment in a request; None when it is not given. Raises InvalidArgument."""
    if not request.HasField(field):
        return None
    moment: Timestamp = getattr(request, field)
    try:
        return moment.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(field, "is no time between the years 1 and 9999") from error


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
    place: Place | None = None,
) -> backup_pb2.Backup:
    """A job; the numbers of disks that are moving come from `progress`, those of a job
    that waits from `place`."""
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
        retry_of_job_id=job.retry.retry_of_job_id if job.retry is not None else "",
        imported_at=timestamp(job.imported_at),
        queue_position=place.position if place else 0,
        waiting_for=place.waiting_for if place else "",
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
        read_method=READ_METHOD[disk.read_method],
        read_reason=disk.read_reason or "",
        sampling=_sampling_message(disk),
        bytes_unchanged=disk.bytes_unchanged,
        resume_count=disk.resume_count,
        bytes_resent=disk.bytes_resent,
    )


def _sampling_message(disk: BackupDisk) -> backup_pb2.DiskSampling | None:
    if not disk.clusters_sampled:
        return None
    return backup_pb2.DiskSampling(
        clusters_sampled=disk.clusters_sampled,
        clusters_drawn_from=disk.clusters_drawn_from,
        undetected_clusters_bound=disk.undetected_clusters_bound,
        clusters_missed=disk.clusters_missed,
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
        restore_point_count=context.restore_point_count,
        bytes_stored=context.bytes_stored,
        tracking_distrusted_since=timestamp(context.tracking_distrusted_since),
        tracking_distrusted_job_id=context.tracking_distrusted_job_id or "",
    )


def deleted_message(deleted: Deleted) -> backup_pb2.DeletedBackups:
    """What a deletion took away."""
    return backup_pb2.DeletedBackups(
        job_ids=deleted.job_ids,
        bytes_stored=deleted.bytes_stored,
        pending_job_ids=deleted.pending_job_ids,
    )


def layer_message(layer: Layer) -> context_pb2.ChainLayer:
    """A layer of a chain."""
    disk = layer.disk
    return context_pb2.ChainLayer(
        job_id=disk.backup_job_id,
        disk_index=disk.disk_index,
        disk_id=disk.id,
        backup_type=TYPE[disk.backup_type],
        created_at=timestamp(disk.job.created_at),
        qcow2_path=disk.qcow2_path or "",
        bytes_stored=disk.bytes_stored,
        capacity_bytes=disk.capacity_bytes,
        disk_change_id=disk.disk_change_id,
        problem=layer.problem,
    )


def change_id_message(found: DiskChangeId) -> context_pb2.GetChangeIdResponse:
    """The change id of a disk."""
    return context_pb2.GetChangeIdResponse(
        disk_change_id=found.change_id,
        context_id=found.context_id,
        job_id=found.job_id,
        disk_id=found.disk_id,
        vmware_disk_key=found.vmware_disk_key,
        disk_uuid=found.disk_uuid,
        completed_at=timestamp(found.completed_at),
    )
