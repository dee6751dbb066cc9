"""What a job waits for, in words that go on after "waits for"."""

from datetime import UTC, datetime, timedelta

from hub.jobs.parts import Parts
from hub.jobs.queue import AgentState, Place


def agent_state(parts: Parts, site: str) -> AgentState:
    """The site's agent as the queue asks for it."""
    if parts.agents.presence(site).connected:
        return AgentState(parts.agents.jobs_in_parallel(site))
    return AgentState(away=_away(parts, site))


def places(parts: Parts) -> dict[str, Place]:
    """Every queued job's place, by id."""
    known: dict[str, AgentState] = {}

    def state(site: str) -> AgentState:
        if site not in known:
            known[site] = agent_state(parts, site)
        return known[site]

    return parts.queue.positions(state)


def running_waits_for(parts: Parts, job_id: str, site: str) -> str:
    """What a job waits for that was handed out; empty when its agent is there and heard of."""
    if not parts.agents.presence(site).connected:
        return _away(parts, site)
    if job_id in parts.leases.over():
        return f"the agent of {site!r}, which is connected and tells nothing of it"
    return ""


def _away(parts: Parts, site: str) -> str:
    """By the clock on the wall: these are words. What the hub does goes by another one."""
    seen_at = parts.agents.presence(site).last_seen_at
    since = parts.started_at if seen_at is None else max(seen_at, parts.started_at)
    until = since + timedelta(seconds=parts.leases.lease_s + parts.patience.resume_wait_s)
    away = f"away since {_shown(since)}" if seen_at is not None else "not back since the hub began"
    return f"the agent of {site!r}, {away}; it is waited for until {_shown(until)}"


def _shown(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
