"""Agents as an administrator sees them: listed, drained, removed."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from hub.catalog import agents as rules
from hub.catalog.models import Agent
from hub.errors import AgentConnected, AgentNotFound
from hub.jobs.agent_directory import Presence
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.parts import Parts

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AgentState:
    """An agent's row, how its site stands now, and the jobs of the site that have not ended."""

    row: Agent
    presence: Presence
    running_jobs: int


def list_agents(
    parts: Parts, *, page_size: int, page_token: str
) -> tuple[Sequence[AgentState], str]:
    """A page of agents ordered by site, and the token of the next. Raises InvalidArgument."""
    with parts.catalog.read() as session:
        rows, next_token = rules.list_agents(session, page_size=page_size, page_token=page_token)
        jobs = rules.live_jobs_per_site(session)
    states = [
        AgentState(row, parts.agents.presence(row.site), jobs.get(row.site, 0)) for row in rows
    ]
    return states, next_token


def get_agent(parts: Parts, site: str) -> AgentState:
    """Raises AgentNotFound."""
    with parts.catalog.read() as session:
        row = rules.find_agent(session, site)
        jobs = rules.live_jobs_per_site(session)
    return AgentState(row, parts.agents.presence(site), jobs.get(site, 0))


def set_draining(parts: Parts, site: str, draining: bool) -> AgentState:
    """Let no new backup start at a site, or let them again. Raises AgentNotFound."""
    _set_draining(parts, site, draining)
    _log.info("agent_drained" if draining else "agent_resumed", site=site)
    return get_agent(parts, site)


def remove_agent(parts: Parts, site: str) -> AgentState:
    """Forget an agent that is away, and its inventory; the agent as it was.

    One that registers meanwhile is either seen, and stays, or is a new one.
    Raises AgentNotFound, AgentConnected, AgentHasJobs.
    """
    state = get_agent(parts, site)
    _remove(parts, state.row)
    parts.agents.forget(site)
    _log.info("agent_removed", site=site, agent_id=state.row.id)
    return state


@retry_catalog
def _set_draining(parts: Parts, site: str, draining: bool) -> None:
    with parts.catalog.write() as session:
        rules.set_draining(session, site, draining)


@retry_catalog
def _remove(parts: Parts, removed: Agent) -> None:
    with parts.catalog.write() as session:
        try:
            row = rules.lock_agent(session, removed.site)
        except AgentNotFound:
            return  # an attempt of ours that seemed to fail removed it, or somebody else
        if row.id != removed.id:
            return  # and a new one has registered
        # Asked with the row locked: an agent that joins from now on waits for the
        # end of this transaction, and is recorded anew.
        if parts.agents.presence(row.site).connected:
            raise AgentConnected(row.site)
        rules.delete_agent(session, row)
