"""The end of a job without success: rows, uploads, files, watchers."""

from collections.abc import Sequence
from typing import Final

import structlog

from hub.catalog import end_job as rules
from hub.catalog.models import BackupJob, WarningFacts
from hub.catalog.queries import find_job
from hub.errors import (
    AgentReported,
    Cancelled,
    JobEnded,
    JobNotFound,
)
from hub.jobs import dispatch
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.parts import Parts
from hub.jobs.removals import begin_removals
from hub.jobs.states import LIVE, Event, Status, target
from sendense.v1 import agent_session_pb2 as pb
from shared.errors import SendenseError
from shared.fail_points import fail_point

# The hub does not wait for the snapshot's removal, which may take minutes: what the agent
# tells of it later is recorded with the job that has ended.
ANSWER_TIMEOUT_S: Final = 3.0
_log = structlog.get_logger(__name__)


def end_job(
    parts: Parts,
    job_id: str,
    event: Event,
    error: SendenseError,
    *,
    warnings: Sequence[WarningFacts] = (),
) -> bool:
    """Move a live job to failed or cancelled, and have what it wrote removed.

    The files stay of a job that may have been completed in a former run of the hub
    (hub/jobs/left_jobs.py). False when it had ended before. Raises JobNotFound,
    CatalogUnavailable. Not to be called while the calling thread holds an upload of the job.
    """
    with_files = job_id not in parts.recovery.unseen
    _keep_progress(parts, job_id)
    # Whoever watches is told first: nothing after it can keep the news back.
    if not end_rows(parts, job_id, event, error, warnings=warnings, with_files=with_files):
        return False
    fail_point("hub.end.rows_ended")
    try:
        parts.uploads.abort_job(job_id, JobEnded(job_id, target(event)))
        begin_removals(parts)
    except Exception:  # noqa: BLE001 - the job has ended; the reaper has its files removed
        _log.exception("job_files_not_removed", job_id=job_id)
    finally:
        # An upload that was still moving may have written its progress again.
        parts.board.forget(job_id)
    return True


def end_rows(
    parts: Parts,
    job_id: str,
    event: Event,
    error: SendenseError,
    *,
    warnings: Sequence[WarningFacts] = (),
    with_files: bool = False,
) -> bool:
    """Move a live job to failed or cancelled. `with_files`: note what it wrote for removal.

    False when it had ended before. Raises JobNotFound, CatalogUnavailable.
    """
    if not _record(parts, job_id, event, error, warnings, with_files):
        return False
    status = target(event)
    job_over(parts, job_id, status)
    _log.info("job_ended", job_id=job_id, status=status, reason=_reason(error), error=str(error))
    return True


def job_over(parts: Parts, job_id: str, status: Status) -> None:
    """The end of a job is committed: its timers and numbers go, its watchers are told, and
    another one may take its place."""
    parts.deadlines.stop(job_id)
    parts.leases.end(job_id)
    parts.queue.done(job_id)
    parts.completions.done(job_id)
    parts.vain_runs.brought_on(job_id)
    parts.agents.job_ended(job_id)
    parts.board.forget(job_id)
    parts.board.changed(job_id)
    parts.metrics.jobs_ended.labels(status).inc()
    dispatch.hand_out(parts)


def end_or_owe(parts: Parts, job_id: str, event: Event, error: SendenseError) -> bool:
    """End a job as `end_job` does; what fails is logged, and tried again by the reaper.

    False when it had ended before. Raises nothing.
    """
    try:
        ended = end_job(parts, job_id, event, error)
    except JobNotFound:
        ended = False
    except SendenseError as failure:
        _log.error("job_not_ended", job_id=job_id, error=str(failure))
        parts.owed.add(job_id, event, error)
        return True
    except Exception:  # noqa: BLE001 - a job left live blocks its context for ever
        _log.exception("job_not_ended", job_id=job_id)
        parts.owed.add(job_id, event, error)
        return True
    parts.owed.paid(job_id)
    return ended


def fail_job(parts: Parts, site: str, job_id: str, error: SendenseError) -> None:
    """End a job for a reason the hub found, and have its site's agent clean up."""
    if end_or_owe(parts, job_id, Event.FAILED, error):
        tell_to_cancel(parts, site, job_id, str(error))


def tell_to_cancel(parts: Parts, site: str, job_id: str, reason: str) -> bool:
    """Send CancelJob. False when the agent is away."""
    command = pb.CancelJob(job_id=job_id, reason=reason)
    return parts.agents.send(site, pb.SessionResponse(cancel_job=command))


def tell_to_let_go(parts: Parts, site: str, job_id: str) -> None:
    """Send JobClosed: the job has ended, and its snapshot is needed no more."""
    closed = pb.JobClosed(job_id=job_id)
    parts.agents.send(site, pb.SessionResponse(job_closed=closed))


def cancel_backup(parts: Parts, job_id: str, reason: str) -> BackupJob:
    """Ask for the end of a job; an ended one stays as it is. Raises JobNotFound."""
    job = _request_cancel(parts, job_id, reason)
    if job.status in LIVE:
        _log.info("job_cancel_requested", job_id=job_id, why=reason)
        cancel_live(parts, job.context.site, job_id, reason)
        parts.board.changed(job_id)
    with parts.catalog.read() as session:
        return find_job(session, job_id, with_disks=True)


def cancel_live(parts: Parts, site: str, job_id: str, reason: str) -> None:
    """End a job as somebody wants it: by its agent, or at once if no agent holds it.

    Should the agent not answer in time, the hub ends it alone. Raises nothing.
    """
    why = Cancelled(reason or "by request")

    def overdue() -> None:
        _log.warning("agent_did_not_end_job", job_id=job_id, site=site)
        parts.deadlines.stop(job_id)
        end_or_owe(parts, job_id, Event.CANCELLED, why)

    held = not dispatch.withdraw(parts, job_id) and parts.agents.serves(site, job_id)
    if held and tell_to_cancel(parts, site, job_id, str(why)):
        parts.deadlines.start(job_id, ANSWER_TIMEOUT_S, overdue)
    else:
        end_or_owe(parts, job_id, Event.CANCELLED, why)
        # An agent that learned of the job as it registered keeps the snapshot for it.
        tell_to_let_go(parts, site, job_id)


@retry_catalog
def _request_cancel(parts: Parts, job_id: str, reason: str) -> BackupJob:
    with parts.catalog.write() as session:
        return rules.request_cancel(session, job_id, reason, parts.now())


def ended_as_unwanted(parts: Parts, job_id: str, warnings: Sequence[WarningFacts]) -> bool:
    """Cancel a live job whose end somebody asked for before the agent told that all is done.

    False: nobody did, or it has ended. Raises JobNotFound.
    """
    with parts.catalog.read() as session:
        job = find_job(session, job_id)
    if job.status not in LIVE or job.cancel_requested_at is None:
        return False
    why = Cancelled(job.cancel_reason or "by request")
    end_job(parts, job_id, Event.CANCELLED, why, warnings=warnings)
    return True


def agent_gave_up(
    parts: Parts,
    job_id: str,
    error: AgentReported,
    *,
    obeyed: bool,
    warnings: Sequence[WarningFacts],
) -> None:
    """The agent ended a job. `obeyed`: because it was told to. Raises JobNotFound."""
    with parts.catalog.read() as session:
        job = find_job(session, job_id, with_disks=True)
    if obeyed and job.cancel_requested_at is not None:
        why = Cancelled(job.cancel_reason or "by request")
        end_job(parts, job_id, Event.CANCELLED, why, warnings=warnings)
        return
    if obeyed:
        # Told to by the hub, over an upload that broke: that is the reason.
        broken = next((disk for disk in job.disks if disk.status is Status.FAILED), None)
        if broken is not None:
            error = AgentReported(broken.error_reason or "", broken.error_message or "")
    end_job(parts, job_id, Event.FAILED, error, warnings=warnings)


def _keep_progress(parts: Parts, job_id: str) -> None:
    """How far its disks came. Nice to know: a job's end does not depend on it."""
    try:
        with parts.catalog.write() as session:
            for disk_index, numbers in parts.board.progress(job_id).items():
                rules.record_progress(
                    session,
                    job_id,
                    disk_index,
                    bytes_planned=numbers.bytes_planned,
                    bytes_read=numbers.bytes_read,
                    bytes_transferred=numbers.bytes_transferred,
                )
    except Exception:  # noqa: BLE001 - whatever it is, the job ends
        _log.exception("progress_not_kept", job_id=job_id)


@retry_catalog
def _record(
    parts: Parts,
    job_id: str,
    event: Event,
    error: SendenseError,
    warnings: Sequence[WarningFacts],
    with_files: bool,
) -> bool:
    with parts.catalog.write() as session:
        return rules.end_job(
            session,
            job_id,
            event,
            reason=_reason(error),
            message=str(error),
            warnings=warnings,
            with_files=with_files,
            now=parts.now(),
        )


def _reason(error: SendenseError) -> str:
    return error.reason if isinstance(error, AgentReported) else error.code
