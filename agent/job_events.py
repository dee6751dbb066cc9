"""What a job tells the hub: its snapshot, and its end."""

from agent.errors import JobCancelled
from agent.hub_errors import backup_error
from agent.job_warnings import JobWarnings
from agent.vsphere.models import JobSnapshot
from sendense.v1 import agent_session_pb2 as pb
from sendense.v1 import backup_pb2

_LEVELS = {
    "crash": backup_pb2.CONSISTENCY_LEVEL_CRASH,
    "file_system": backup_pb2.CONSISTENCY_LEVEL_FILE_SYSTEM,
}


def opened(job_id: str, snapshot: JobSnapshot) -> pb.SessionRequest:
    """The snapshot stands; these are its disks."""
    event = pb.JobOpened(
        job_id=job_id,
        snapshot=snapshot.moref,
        other_snapshots=snapshot.other_snapshots,
        consistency_level=_LEVELS[snapshot.consistency],
        disks=[
            pb.SnapshotDisk(
                disk_index=disk.index,
                vmware_disk_key=disk.key,
                disk_uuid=disk.uuid,
                label=disk.label,
                capacity_bytes=disk.capacity_bytes,
                change_id=disk.change_id,
            )
            for disk in snapshot.disks
        ],
        warnings=[
            backup_pb2.BackupWarning(
                code=warning.code, message=warning.message, disk_label=warning.disk_label
            )
            for warning in snapshot.warnings
        ],
    )
    return pb.SessionRequest(job_opened=event)


def read(job_id: str) -> pb.SessionRequest:
    """What was read is of one moment; the snapshot is removed next."""
    return pb.SessionRequest(job_read=pb.JobRead(job_id=job_id))


def uploaded(job_id: str, warnings: JobWarnings) -> pb.SessionRequest:
    """Every disk is sealed."""
    return pb.SessionRequest(
        job_uploaded=pb.JobUploaded(job_id=job_id, warnings=warnings.messages())
    )


def failed(job_id: str, cause: Exception, warnings: JobWarnings) -> pb.SessionRequest:
    """The job ended without its disks."""
    event = pb.JobFailed(
        job_id=job_id,
        error=backup_error(cause),
        cancelled=isinstance(cause, JobCancelled),
        warnings=warnings.messages(),
    )
    return pb.SessionRequest(job_failed=event)
