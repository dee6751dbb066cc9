"""What becomes of a site's jobs when its agent registers.

Those that the agent names are its own from then on. Of the others, one that was never
opened is queued, one that was read is completed, and any other is to be resumed, unless
too many runs in a row had it in vain.
"""

from collections.abc import Collection, Sequence

from hub.catalog.end_job import LiveJob
from hub.catalog.queries import find_job
from hub.errors import AgentEndedAtJob, AgentLost
from hub.jobs import dispatch
from hub.jobs.agent_link import AgentLink
from hub.jobs.complete import complete_left
from hub.jobs.end import cancel_live, end_or_owe, fail_job, tell_to_cancel, tell_to_let_go
from hub.jobs.parts import Parts
from hub.jobs.resume import resume
from hub.jobs.states import LIVE, Event, Status
from shared.errors import SendenseError


def take_jobs(
    parts: Parts, link: AgentLink, live: Sequence[LiveJob], named: Collection[str]
) -> None:
    """Note whose the jobs are, before the link takes any command. Raises CatalogUnavailable."""
    for job in live:
        if job.job_id in named:
            link.take(job.job_id)
            parts.owed.came_back(job.job_id)
            parts.leases.begin(job.job_id)
            with parts.catalog.read() as session:
                dispatch.took(parts, find_job(session, job.job_id))
        elif job.job_id in parts.recovery.unseen:
            continue
        elif job.cancel_reason is None:
            _take_left(parts, link, job)


def _take_left(parts: Parts, link: AgentLink, job: LiveJob) -> None:
    """Of a job that another run left. Raises CatalogUnavailable."""
    pending = job.status is Status.PENDING
    # A pending job without a lease was in the queue.
    if not pending or parts.leases.holds(job.job_id):
        parts.vain_runs.given(job.job_id, link.run_id)
    if pending and not parts.vain_runs.too_many(job.job_id):
        dispatch.enqueue(parts, job.job_id)


def settle_jobs(
    parts: Parts, link: AgentLink, live: Sequence[LiveJob], named: Collection[str]
) -> None:
    """Tell the agent what is to be done, and do what needs none. Raises nothing."""
    site = link.site
    for job_id in sorted(set(named) - {job.job_id for job in live}):
        tell_to_cancel(parts, site, job_id, f"backup job {job_id} has ended, or is unknown")
    for job in live:
        if job.cancel_reason is not None:
            cancel_live(parts, site, job.job_id, job.cancel_reason)
        elif job.job_id not in named and job.job_id not in parts.recovery.unseen:
            # The reaper has the unseen ones resumed once their files were looked at.
            _settle_left(parts, link, job)
    dispatch.hand_out(parts)


def _settle_left(parts: Parts, link: AgentLink, job: LiveJob) -> None:
    runs = parts.vain_runs.too_many(job.job_id)
    if runs and not job.is_read:
        fail_job(parts, link.site, job.job_id, AgentEndedAtJob(link.site, job.job_id, runs - 1))
        return
    if job.status is Status.PENDING:
        return  # it is in the queue
    if job.is_read:
        # Its snapshot may be gone: it is never resumed.
        if complete_left(parts, job.job_id):
            tell_to_let_go(parts, link.site, job.job_id)
        else:
            parts.leases.begin_if_none(job.job_id)  # the reaper tries again
        return
    if link.keeps_jobs:
        # Should it not be sent or not be heeded, the reaper sends it again.
        if not resume(parts, link.site, job.job_id) and _has_ended(parts, job.job_id):
            tell_to_let_go(parts, link.site, job.job_id)
            return
        # To register is no sign of life of a job: an agent that fails at it does so for ever.
        parts.leases.begin_if_none(job.job_id)
    else:
        end_or_owe(parts, job.job_id, Event.FAILED, AgentLost(link.site))


def _has_ended(parts: Parts, job_id: str) -> bool:
    """False also when the catalog does not tell."""
    try:
        with parts.catalog.read() as session:
            return find_job(session, job_id).status not in LIVE
    except SendenseError:
        return False
