"""Handing jobs to agents: as many as the limits allow, each of them once."""

import structlog

from hub.catalog.models import BackupJob
from hub.catalog.queries import find_job
from hub.errors import JobNotFound
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.parts import Parts
from hub.jobs.queue import AgentState, Key, QueuedJob
from hub.jobs.states import Status
from hub.jobs.waiting import agent_state
from sendense.v1 import agent_session_pb2 as pb
from shared.fail_points import fail_point

_log = structlog.get_logger(__name__)


def enqueue(parts: Parts, job_id: str) -> None:
    """Let a pending job wait for its turn; one that was handed out waits at its old place.

    Raises JobNotFound, CatalogUnavailable.
    """
    queue_job(parts, _row_at_last(parts, job_id))


def queue_job(parts: Parts, job: BackupJob) -> None:
    """`enqueue` for whoever has the row."""
    parts.leases.end(job.id)
    parts.queue.add(
        QueuedJob(job.id, job.context.site, job.repository_id, datastores_of(parts, job))
    )


def took(parts: Parts, job: BackupJob) -> None:
    """An agent has the job already: it counts for the limits, whatever they are."""
    parts.queue.took(job.id, job.context.site, job.repository_id, datastores_of(parts, job))


def datastores_of(parts: Parts, job: BackupJob) -> frozenset[str]:
    """Where the VM's disks lie, as its agent last reported it; none of a VM that is not known."""
    context = job.context
    return frozenset(
        _datastore(disk.file_name)
        for one in parts.agents.reported(site=context.site, name=context.vm_name)
        if one.vm.instance_uuid == context.instance_uuid
        for disk in one.vm.disks
    ) - {""}


def _datastore(file_name: str) -> str:
    """Of "[datastore] folder/file.vmdk"."""
    name, bracket, _ = file_name.removeprefix("[").partition("] ")
    return name if bracket and file_name.startswith("[") else ""


def start_command(job: BackupJob) -> pb.StartJob:
    """What the agent is told of a job to begin; its context must be loaded."""
    context = job.context
    return pb.StartJob(
        job_id=job.id,
        vmware_vm_id=context.vmware_vm_id,
        instance_uuid=context.instance_uuid,
        vm_name=context.vm_name,
        quiesce=job.quiesce,
    )


def withdraw(parts: Parts, job_id: str) -> bool:
    """Take a job from the queue, for its end. False when it was handed out, or never queued.

    A job that is being handed out at this moment has been sent when this returns: a
    CancelJob comes after its StartJob.
    """
    with parts.queue.handing:
        withdrawn = parts.queue.withdraw(job_id)
    if withdrawn:
        parts.leases.end(job_id)
    return withdrawn


def hand_out(parts: Parts) -> None:
    """Give queued jobs to their agents, as far as the limits allow now. Raises nothing.

    A queued job whose agent is away has a lease from the first look that finds it so
    until one finds the agent back: when that is over, nobody waits for it any longer.
    """
    try:
        with parts.queue.handing:
            _hand_out(parts)
    except Exception:  # noqa: BLE001 - they stay queued; the next job's end, or the reaper, tries again
        _log.exception("jobs_not_handed_out")


def _hand_out(parts: Parts) -> None:
    # One look at each is enough: what is handed out on the way only holds more back.
    agents: dict[str, AgentState] = {}
    kept: set[Key] = set()
    for queued in parts.queue.waiting():
        agent = agents.get(queued.site)
        if agent is None:
            agent = agents[queued.site] = agent_state(parts, queued.site)
        if agent.away:
            parts.leases.begin_if_none(queued.job_id)
            continue
        parts.leases.end(queued.job_id)
        if parts.queue.take(queued.job_id, agent, kept):
            _give(parts, queued)


def _give(parts: Parts, queued: QueuedJob) -> None:
    """A job that was taken from the queue goes to its agent, back into the queue, or has ended."""
    job_id = queued.job_id
    try:
        job = _row(parts, job_id)
    except JobNotFound:
        parts.queue.done(job_id)
        return
    except BaseException:
        parts.queue.put_back(job_id)
        raise
    if job.status is Status.RUNNING:
        parts.leases.begin_if_none(job_id)  # an agent opened it: it runs, as the queue has it now
        return
    if job.status is not Status.PENDING:
        parts.queue.done(job_id)
        return
    if job.cancel_requested_at is not None:
        parts.queue.put_back(job_id)  # whoever cancels it withdraws it next
        return
    # Before the agent may answer.
    parts.leases.begin(job_id)
    if parts.agents.send(queued.site, pb.SessionResponse(start_job=start_command(job))):
        fail_point("hub.start.sent")
        _log.info("job_handed_out", job_id=job_id, site=queued.site)
        parts.board.changed(job_id)
    else:
        parts.leases.end(job_id)
        parts.queue.put_back(job_id)


@retry_catalog
def _row_at_last(parts: Parts, job_id: str) -> BackupJob:
    return _row(parts, job_id)


def _row(parts: Parts, job_id: str) -> BackupJob:
    with parts.catalog.read() as session:
        return find_job(session, job_id)
