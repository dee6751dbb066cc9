"""What becomes of the disk and its job when an upload has failed."""

import structlog

from hub.catalog.models import BackupDisk
from hub.jobs.end import ask_to_end, fail_job
from hub.jobs.parts import Parts
from hub.jobs.receive_disk.rows import cancel_requested, record_break
from hub.jobs.states import Event
from hub.repository import LayerWriter
from shared.errors import SendenseError

_log = structlog.get_logger(__name__)


def fail_disk(
    parts: Parts, site: str, disk: BackupDisk, error: SendenseError, *, broke: bool
) -> None:
    """Record the failure and end the job. `broke`: the connection did. Raises nothing."""
    job_id, disk_index = disk.backup_job_id, disk.disk_index
    try:
        if broke and cancel_requested(parts, job_id):
            # The agent obeys. Its disk did not fail: the job's end cancels it.
            _log.info("upload_cancelled", job_id=job_id, disk=disk_index)
            return
        _log.warning("upload_failed", job_id=job_id, disk=disk_index, error=str(error))
        try:
            record_break(parts, disk.id, error)
        except SendenseError as failure:
            # The job's end marks its disks too.
            _log.warning("disk_not_failed", job_id=job_id, error=str(failure))
        parts.board.changed(job_id)
        if broke:
            # The agent may have broken it off for a reason of its own, which
            # it is about to report: that one is worth more than "it broke".
            ask_to_end(parts, site, job_id, event=Event.FAILED, error=error)
        else:
            fail_job(parts, site, job_id, error)
    except Exception:  # noqa: BLE001 - nobody above to report a defect to
        _log.exception("job_not_failed", job_id=job_id)
        parts.owed.add(job_id, Event.FAILED, error)


def discard(writer: LayerWriter, job_id: str) -> None:
    """Remove the files of an upload that failed. Raises nothing."""
    try:
        writer.discard()
    except SendenseError as error:
        _log.warning("partial_layer_not_removed", job_id=job_id, error=str(error))
    except Exception:  # noqa: BLE001 - the job is to fail all the same
        _log.exception("partial_layer_not_removed", job_id=job_id)
