"""Another attempt at a backup that failed or was cancelled."""

from typing import Final

import structlog

from hub.catalog.models import BackupJob
from hub.catalog.queries import find_job
from hub.catalog.start_job import job_of_request
from hub.errors import JobNotFound, JobNotUnsuccessful
from hub.jobs.asked_vm import vm_of_context
from hub.jobs.parts import Parts
from hub.jobs.start import NewJob, begin_backup, usable_request_id
from hub.jobs.states import Status
from shared.errors import InvalidArgument

UNSUCCESSFUL: Final = (Status.FAILED, Status.CANCELLED)
_log = structlog.get_logger(__name__)


def retry_backup(parts: Parts, job_id: str, request_id: str = "") -> BackupJob:
    """A new pending job with what an unsuccessful one was asked for; for a repeated
    request id, its job, also when the one that it repeats was deleted since.

    Raises InvalidArgument (the request id started something else), JobNotFound,
    JobNotUnsuccessful, and what `start_backup` raises.
    """
    request_id = usable_request_id(request_id)
    with parts.turns.turn(f"request {request_id}"):
        with parts.catalog.read() as session:
            repeated = job_of_request(session, request_id)
            if repeated is not None and _repeats(repeated, job_id):
                return find_job(session, repeated.id, with_disks=True)
            try:
                original = find_job(session, job_id)
            except JobNotFound:
                # What a job repeats is forgotten with the job that it repeats.
                if repeated is None or repeated.retry is not None:
                    raise
                return find_job(session, repeated.id, with_disks=True)
        if repeated is not None:
            raise InvalidArgument("request_id", f"started {repeated.id}, no retry of {job_id}")
        if original.status not in UNSUCCESSFUL:
            raise JobNotUnsuccessful(job_id, original.status)
        _log.info("job_retried", job_id=job_id)
        return begin_backup(
            parts,
            NewJob(
                vm=vm_of_context(parts, original.context),
                repository=original.context.repository,
                backup_type=original.requested_type,
                quiesce=original.quiesce,
                request_id=request_id,
                retry_of=job_id,
            ),
        )


def _repeats(job: BackupJob, job_id: str) -> bool:
    return job.retry is not None and job.retry.retry_of_job_id == job_id
