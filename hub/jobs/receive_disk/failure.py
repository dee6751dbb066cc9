"""What becomes of the disk, its layer and its job when an upload has ended without a seal."""

from typing import Final

import structlog
from grpc import StatusCode

from hub.catalog.models import BackupDisk
from hub.errors import (
    FrameDamaged,
    TooManyStreams,
    UploadStalled,
    UploadSuperseded,
    UploadTruncated,
)
from hub.jobs.end import fail_job
from hub.jobs.parts import Parts
from hub.jobs.receive_disk.rows import record_break
from hub.jobs.removals import begin_removals
from hub.jobs.states import Event
from hub.repository import LayerWriter
from shared.errors import SendenseError

_PASSING: Final = (UploadSuperseded, FrameDamaged, UploadTruncated, UploadStalled, TooManyStreams)
_log = structlog.get_logger(__name__)


def may_go_on(error: SendenseError) -> bool:
    """Whether what is durable stays, for another call to go on behind it (upload.proto)."""
    return isinstance(error, _PASSING) or error.status is StatusCode.UNAVAILABLE


def fail_disk(parts: Parts, site: str, disk: BackupDisk, error: SendenseError) -> None:
    """Record the failure and end the job. Raises nothing."""
    job_id, disk_index = disk.backup_job_id, disk.disk_index
    try:
        _log.warning("upload_failed", job_id=job_id, disk=disk_index, error=str(error))
        try:
            record_break(parts, disk.id, error)
        except SendenseError as failure:
            # The job's end marks its disks too.
            _log.warning("disk_not_failed", job_id=job_id, error=str(failure))
        parts.board.changed(job_id)
        fail_job(parts, site, job_id, error)
    except Exception:  # noqa: BLE001 - nobody above to report a defect to
        _log.exception("job_not_failed", job_id=job_id)
        parts.owed.add(job_id, Event.FAILED, error)


def remove_left_files(parts: Parts) -> None:
    """Have what ended jobs left removed; what fails is the reaper's. Raises nothing."""
    try:
        begin_removals(parts)
    except SendenseError as error:
        _log.warning("job_files_not_removed", error=str(error))


def put_away(writer: LayerWriter, job_id: str, *, keep: bool) -> None:
    """Close the files of an upload that ended; `keep` them to go on with, or remove them. Raises nothing."""
    try:
        if keep:
            writer.suspend()
        else:
            writer.discard()
    except Exception:  # noqa: BLE001 - the disk is to be given back all the same
        _log.exception("partial_layer_not_put_away", job_id=job_id, keep=keep)
