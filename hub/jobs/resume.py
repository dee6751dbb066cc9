"""Jobs that an agent of theirs left: another run of it is asked to go on with them."""

import structlog

from hub.catalog.models import BackupJob
from hub.catalog.queries import find_job
from hub.jobs import dispatch
from hub.jobs.parts import Parts
from hub.jobs.states import Status
from sendense.v1 import agent_session_pb2 as pb
from shared.errors import SendenseError

_log = structlog.get_logger(__name__)


def resume(parts: Parts, site: str, job_id: str) -> bool:
    """Send ResumeJob for a running job. False when it was not sent. Raises nothing."""
    try:
        with parts.catalog.read() as session:
            job = find_job(session, job_id, with_disks=True)
            if job.status is not Status.RUNNING:
                return False
            command = _command(job)
    except SendenseError as error:
        _log.warning("job_not_resumed", job_id=job_id, error=str(error))
        return False
    sent = parts.agents.send(site, pb.SessionResponse(resume_job=command))
    if sent:
        _log.info("job_to_resume", job_id=job_id, site=site)
    return sent


def _command(job: BackupJob) -> pb.ResumeJob:
    return pb.ResumeJob(
        start=dispatch.start_command(job),
        snapshot=job.snapshot,
        disks=[
            pb.SnapshotDisk(
                disk_index=disk.disk_index,
                vmware_disk_key=disk.vmware_disk_key,
                disk_uuid=disk.disk_uuid,
                label=disk.label,
                capacity_bytes=disk.capacity_bytes,
                change_id=disk.disk_change_id,
            )
            for disk in job.disks
        ],
    )
