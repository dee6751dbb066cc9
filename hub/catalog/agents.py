"""Agents in the catalog: one row a site, kept when the agent is away."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from hub.catalog.ids import slug
from hub.catalog.models import Agent, BackupJob, VmBackupContext
from hub.catalog.paging import decode_token, encode_token, page_rows
from hub.errors import AgentHasJobs, AgentNotFound
from hub.jobs.states import LIVE


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What an agent says of itself when it registers."""

    site: str
    hostname: str
    version: str
    vsphere_address: str
    vsphere_full_name: str
    vsphere_api_type: str
    vsphere_api_version: str


def record_registration(session: Session, facts: AgentFacts, now: datetime) -> Agent:
    """Insert or refresh the site's row. Its id stays the same, and is of this catalog alone.

    Whether it is being drained stays, too. A removal under way is waited for: the
    agent is a new one then.
    """
    try:
        agent = lock_agent(session, facts.site)
    except AgentNotFound:
        # Snapshots carry it: another hub's catalog must never hand out the same one.
        agent_id = f"agent-{slug(facts.site)}-{uuid4().hex}"
        agent = Agent(id=agent_id, site=facts.site, created_at=now)
        session.add(agent)
    agent.hostname = facts.hostname
    agent.version = facts.version
    agent.vsphere_address = facts.vsphere_address
    agent.vsphere_full_name = facts.vsphere_full_name
    agent.vsphere_api_type = facts.vsphere_api_type
    agent.vsphere_api_version = facts.vsphere_api_version
    agent.connected_since = agent.last_seen_at = now
    session.flush()
    return agent


def record_departure(session: Session, site: str, last_seen_at: datetime) -> None:
    """The session of the site's agent ended."""
    session.execute(
        update(Agent)
        .where(Agent.site == site)
        .values(connected_since=None, last_seen_at=last_seen_at)
    )


def record_all_away(session: Session) -> None:
    """At start no agent is connected yet."""
    session.execute(update(Agent).values(connected_since=None))


def find_agent(session: Session, site: str) -> Agent:
    """Raises AgentNotFound."""
    agent = session.scalars(select(Agent).where(Agent.site == site)).first()
    if agent is None:
        raise AgentNotFound(site)
    return agent


def is_known_site(session: Session, site: str) -> bool:
    """Whether an agent registered for the site, or a VM of it was backed up: backups
    outlive the removal of their agent."""
    for query in (
        select(Agent.id).where(Agent.site == site),
        select(VmBackupContext.context_id).where(VmBackupContext.site == site),
    ):
        if session.scalars(query.limit(1)).first() is not None:
            return True
    return False


def list_agents(
    session: Session, *, page_size: int = 0, page_token: str = ""
) -> tuple[Sequence[Agent], str]:
    """A page of agents ordered by site, and the token of the next. Raises InvalidArgument."""
    rows = page_rows(page_size)
    query = select(Agent)
    after = decode_token(page_token, str)
    if after is not None:
        query = query.where(Agent.site > after[0])
    found = session.scalars(query.order_by(Agent.site).limit(rows + 1)).all()
    return found[:rows], encode_token(found[rows - 1].site) if len(found) > rows else ""


def set_draining(session: Session, site: str, draining: bool) -> Agent:
    """Let no new backup start at the site, or let them again. Raises AgentNotFound.

    A start under way is waited for, and every later one sees it.
    """
    agent = lock_agent(session, site)
    agent.draining = draining
    session.flush()
    return agent


def lock_agent(session: Session, site: str) -> Agent:
    """Hold the row of the site's agent until the transaction ends; its registration waits.

    The row as it is now. Raises AgentNotFound. All who lock it find it by its site:
    InnoDB would let two who come by different indexes wait for one another.
    """
    agent = session.scalars(
        select(Agent)
        .where(Agent.site == site)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).first()
    if agent is None:
        raise AgentNotFound(site)
    return agent


def delete_agent(session: Session, agent: Agent) -> None:
    """Forget an agent; contexts and jobs of its site stay. Raises AgentHasJobs."""
    jobs = live_jobs_per_site(session).get(agent.site, 0)
    if jobs:
        raise AgentHasJobs(agent.site, jobs)
    session.delete(agent)
    session.flush()


def live_jobs_per_site(session: Session) -> dict[str, int]:
    """How many jobs have not ended, by site; sites without one are left out."""
    counted = session.execute(
        select(VmBackupContext.site, func.count())
        .join(BackupJob, BackupJob.vm_backup_context_id == VmBackupContext.context_id)
        .where(BackupJob.status.in_(LIVE))
        .group_by(VmBackupContext.site)
    )
    return {row[0]: row[1] for row in counted}
