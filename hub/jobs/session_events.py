"""What an agent tells of its jobs, and what the hub makes of it.

An event of one job never ends the session: a job that cannot go on is failed
and the agent told to clean up. Only a broken protocol does.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import structlog

from hub.catalog.bases import FrozenDisk
from hub.catalog.complete_job import record_read
from hub.catalog.models import MAX_TEXT_CHARS, WarningFacts
from hub.catalog.queries import find_job
from hub.errors import AgentReported, CatalogUnavailable, JobEnded, JobNotFound, ProtocolViolation
from hub.jobs.agent_link import AgentLink
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.complete import REMOVAL_UNKNOWN, complete_backup
from hub.jobs.end import agent_gave_up, end_rows, ended_as_unwanted, fail_job, tell_to_cancel
from hub.jobs.kept_inventories import take_inventory
from hub.jobs.open import DiskToRead, open_backup
from hub.jobs.parts import Parts
from hub.jobs.read_methods import READ_METHOD
from hub.jobs.states import LIVE, Consistency, Event, ReadMethod, Status
from hub.repository import LayerWriteFailed, RepositoryFull, RepositoryUnusable
from sendense.v1 import agent_session_pb2 as pb
from sendense.v1 import backup_pb2
from shared.errors import SendenseError
from shared.fail_points import fail_point

MAX_WARNINGS: Final = 100
# After them the agent has nothing more to tell of a job.
LAST_EVENTS: Final = ("job_uploaded", "job_failed")
_OF_REPOSITORY: Final = (RepositoryUnusable, RepositoryFull, LayerWriteFailed)
_log = structlog.get_logger(__name__)

CONSISTENCY = {
    backup_pb2.CONSISTENCY_LEVEL_CRASH: Consistency.CRASH,
    backup_pb2.CONSISTENCY_LEVEL_FILE_SYSTEM: Consistency.FILE_SYSTEM,
}


def handle_event(parts: Parts, link: AgentLink, request: pb.SessionRequest) -> None:
    """Act on one event. Raises ProtocolViolation when the session must end."""
    kind = request.WhichOneof("event")
    if not link.keeps_jobs:
        # It does not name its jobs, and they end with its session: while that lasts, it has them.
        parts.leases.renew(link.given())
    if kind == "heartbeat":
        parts.leases.renew(link.given().intersection(request.heartbeat.job_ids))
    elif kind == "inventory":
        take_inventory(parts, link, request.inventory)
    elif kind == "job_opened":
        _of_job(parts, link, request.job_opened.job_id, request)
    elif kind == "job_read":
        _of_job(parts, link, request.job_read.job_id, request)
    elif kind == "job_uploaded":
        _of_job(parts, link, request.job_uploaded.job_id, request)
    elif kind == "job_failed":
        _of_job(parts, link, request.job_failed.job_id, request)
    else:
        raise ProtocolViolation(f"{kind or 'an empty event'} has no place in a session")


def _of_job(parts: Parts, link: AgentLink, job_id: str, request: pb.SessionRequest) -> None:
    kind = request.WhichOneof("event")
    try:
        site, _ = _site_and_status(parts, job_id)
    except JobNotFound as error:
        _log.warning("agent_named_unknown_job", site=link.site, job_id=job_id)
        if kind not in LAST_EVENTS:
            tell_to_cancel(parts, link.site, job_id, str(error))
        _close(link, job_id)
        return
    if site != link.site:
        raise ProtocolViolation(f"the agent of {link.site!r} told of {job_id}, of another site")
    if link.serves(job_id):
        parts.leases.renew([job_id])
    try:
        if kind == "job_opened":
            _opened(parts, link, request.job_opened)
        elif kind == "job_read":
            if _record_read(parts, job_id):
                fail_point("hub.read.recorded")
        elif kind == "job_uploaded":
            warnings = _warnings(request.job_uploaded.warnings)
            if not ended_as_unwanted(parts, job_id, warnings):
                complete_backup(parts, job_id, warnings)
        else:
            _failed(parts, request)
    except JobEnded as error:
        # It ended while the agent was at work.
        _log.info("agent_is_behind", job_id=job_id, reported=kind, error=str(error))
        if kind == "job_uploaded":
            _keep_warnings(parts, job_id, _warnings(request.job_uploaded.warnings))
        else:
            tell_to_cancel(parts, link.site, job_id, str(error))
    except SendenseError as error:
        if link.keeps_jobs and isinstance(error, CatalogUnavailable):
            # Nothing is lost by it: the agent registers again, and repeats the event.
            raise
        _log.warning("job_event_failed", job_id=job_id, reported=kind, error=str(error))
        if kind in LAST_EVENTS and isinstance(error, _OF_REPOSITORY):
            # All its layers are sealed: the reaper completes it once its repository is back.
            parts.completions.add(job_id, _told_warnings(request))
        else:
            fail_job(parts, link.site, job_id, error)
    except Exception:  # noqa: BLE001 - a defect costs the job, not the session
        _log.exception("job_event_failed_unexpectedly", job_id=job_id, reported=kind)
        fail_job(parts, link.site, job_id, SendenseError())
    if _is_awaited(parts, job_id, kind):
        return
    _close(link, job_id)
    if kind == "job_uploaded":
        fail_point("hub.complete.closed")


def _is_awaited(parts: Parts, job_id: str, kind: str | None) -> bool:
    """Whether the agent has more to tell of a job, or its end could not be recorded yet."""
    try:
        _, status = _site_and_status(parts, job_id)
    except JobNotFound:
        return False  # deleted since it ended
    return status in LIVE or (status is Status.COMPLETED and kind == "job_read")


def _close(link: AgentLink, job_id: str) -> None:
    """Tell the agent that it need not repeat what it told of the job."""
    link.send(pb.SessionResponse(job_closed=pb.JobClosed(job_id=job_id)))


@retry_catalog
def _site_and_status(parts: Parts, job_id: str) -> tuple[str, Status]:
    with parts.catalog.read() as session:
        job = find_job(session, job_id)
        return job.context.site, job.status


@retry_catalog
def _record_read(parts: Parts, job_id: str) -> bool:
    with parts.catalog.write() as session:
        return record_read(session, job_id, parts.now())


def _keep_warnings(parts: Parts, job_id: str, warnings: Sequence[WarningFacts]) -> None:
    """What the agent tells of the snapshot of a job that ended without it."""
    error = AgentReported("", "")
    end_rows(parts, job_id, Event.FAILED, error, warnings=warnings)


def _opened(parts: Parts, link: AgentLink, opened: pb.JobOpened) -> None:
    plan = open_backup(
        parts,
        opened.job_id,
        disks=[
            FrozenDisk(
                disk_index=disk.disk_index,
                vmware_disk_key=disk.vmware_disk_key,
                disk_uuid=_id(disk.disk_uuid, 64),
                label=disk.label[:255],
                capacity_bytes=disk.capacity_bytes,
                change_id=_id(disk.change_id, 255),
            )
            for disk in opened.disks
        ],
        snapshot=opened.snapshot[:64],
        other_snapshots=[name[:255] for name in islice(opened.other_snapshots, MAX_WARNINGS)],
        consistency=CONSISTENCY.get(opened.consistency_level),
        warnings=_warnings(opened.warnings),
    )
    disks = [_disk_plan(disk) for disk in plan]
    # Should the link be closed by now, the agent opens the job again in its next session.
    link.send(pb.SessionResponse(job_plan=pb.JobPlan(job_id=opened.job_id, disks=disks)))
    fail_point("hub.open.planned")


def _disk_plan(disk: DiskToRead) -> pb.DiskPlan:
    full = disk.method is ReadMethod.ALLOCATED
    return pb.DiskPlan(
        disk_index=disk.disk_index,
        backup_type=backup_pb2.BACKUP_TYPE_FULL if full else backup_pb2.BACKUP_TYPE_INCREMENTAL,
        base_change_id=disk.base_change_id,
        read_method=READ_METHOD[disk.method],
        read_reason=disk.reason,
    )


def _told_warnings(request: pb.SessionRequest) -> Sequence[WarningFacts]:
    """Those of the completion that the agent's last event of a job stands for."""
    if request.WhichOneof("event") == "job_uploaded":
        return _warnings(request.job_uploaded.warnings)
    return _warnings(request.job_failed.warnings) or [REMOVAL_UNKNOWN]


def _failed(parts: Parts, request: pb.SessionRequest) -> None:
    failed = request.job_failed
    if _was_read(parts, failed.job_id):
        # All of it is stored: what went wrong after that is about its snapshot.
        _log.warning("agent_failed_after_reading", job_id=failed.job_id, error=failed.error.message)
        complete_backup(parts, failed.job_id, _told_warnings(request))
        return
    error = AgentReported(
        failed.error.reason[:64] or "AGENT_ERROR",
        failed.error.message[:MAX_TEXT_CHARS] or "the agent gave no reason",
    )
    agent_gave_up(
        parts, failed.job_id, error, obeyed=failed.cancelled, warnings=_warnings(failed.warnings)
    )


def _was_read(parts: Parts, job_id: str) -> bool:
    """Whether it is a live job that was read, and whose end nobody asked for."""
    with parts.catalog.read() as session:
        job = find_job(session, job_id)
    running = job.status is Status.RUNNING
    return running and job.read_at is not None and job.cancel_requested_at is None


def _warnings(messages: Iterable[backup_pb2.BackupWarning]) -> list[WarningFacts]:
    return [
        {
            "code": one.code[:64],
            "message": one.message[:MAX_TEXT_CHARS],
            "disk_label": one.disk_label[:255],
        }
        for one in islice(messages, MAX_WARNINGS)
    ]


def _id(text: str, limit: int) -> str:
    """An id that does not fit is none: its beginning would name something else."""
    return text if len(text) <= limit else ""
