"""The inventories of agents, kept for the time when their agents are away."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalog.agents import lock_agent
from hub.catalog.models import Agent, AgentInventory


def keep_inventory(session: Session, site: str, content: bytes, now: datetime) -> None:
    """The last inventory of the site's agent, some MiB at most. Raises AgentNotFound."""
    agent = lock_agent(session, site)
    kept = session.get(AgentInventory, agent.id)
    if kept is None:
        session.add(AgentInventory(agent_id=agent.id, content=content, reported_at=now))
    else:
        kept.content, kept.reported_at = content, now
    session.flush()


def kept_inventories(session: Session) -> dict[str, bytes]:
    """What was kept, by site."""
    rows = session.execute(
        select(Agent.site, AgentInventory.content).join(
            AgentInventory, AgentInventory.agent_id == Agent.id
        )
    )
    return {row[0]: row[1] for row in rows}
