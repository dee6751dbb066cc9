"""Agents in the catalog: one row a site, kept when the agent is away."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from hub.catalog.ids import slug
from hub.catalog.models import Agent, BackupJob, VmBackupContext
from hub.errors import AgentNotFound
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
    """Insert or refresh the site's row. Its id stays the same, and is of this catalog alone."""
    agent = session.scalars(select(Agent).where(Agent.site == facts.site)).first()
    if agent is None:
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


def all_agents(session: Session) -> Sequence[Agent]:
    """Ordered by site."""
    return session.scalars(select(Agent).order_by(Agent.site)).all()


def live_jobs_per_site(session: Session) -> dict[str, int]:
    """How many jobs have not ended, by site; sites without one are left out."""
    counted = session.execute(
        select(VmBackupContext.site, func.count())
        .join(BackupJob, BackupJob.vm_backup_context_id == VmBackupContext.context_id)
        .where(BackupJob.status.in_(LIVE))
        .group_by(VmBackupContext.site)
    )
    return {row[0]: row[1] for row in counted}
