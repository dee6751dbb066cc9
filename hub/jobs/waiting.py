"""What a job waits for, in words that go on after "waits for"."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from hub.catalog.models import BackupJob
from hub.jobs.parts import Parts
from hub.jobs.queue import AgentState, Place
from hub.jobs.states import LIVE


def agent_state(parts: Parts, site: str) -> AgentState:
    """The site's agent as the queue asks for it."""
    if parts.agents.presence(site).connected:
        return AgentState(parts.agents.jobs_in_parallel(site))
    return AgentState(away=_away(parts, site))


def places_of(parts: Parts, jobs: Iterable[BackupJob]) -> dict[str, Place]:
    """Of those of the jobs that wait: place 0 when one was handed out, and its agent is
    not heard of."""
    live = [job for job in jobs if job.status in LIVE]
    if not live:
        return {}
    states: dict[str, AgentState] = {}

    def state(site: str) -> AgentState:
        if site not in states:
            states[site] = agent_state(parts, site)
        return states[site]

    queued = parts.queue.positions(state)
    over = parts.leases.over()
    found: dict[str, Place] = {}
    for job in live:
        site = job.context.site
        if job.id in queued:
            found[job.id] = queued[job.id]
        elif state(site).away:
            found[job.id] = Place(0, state(site).away)
        elif job.id in over:
            found[job.id] = Place(0, f"the agent of {site!r}, which tells nothing of it")
    return found


class WaitingCollector(Collector):
    """How many jobs wait, counted when it is asked for: those in the queue, and those that
    were handed out and whose agents are away."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Their names."""
        yield _queued(0)
        yield _agent_away(0)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Their numbers."""
        parts = self._parts
        yield _queued(parts.queue.waiting_count())
        away = [
            job for job in parts.queue.running() if not parts.agents.presence(job.site).connected
        ]
        yield _agent_away(len(away))


def _queued(count: int) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "sendense_hub_jobs_queued", "Backup jobs that wait for their turn", value=count
    )


def _agent_away(count: int) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "sendense_hub_jobs_waiting_for_agents",
        "Backup jobs that were handed out and whose agent is away",
        value=count,
    )


def _away(parts: Parts, site: str) -> str:
    """By the clock on the wall: these are words. What the hub does goes by another one."""
    seen_at = parts.agents.presence(site).last_seen_at
    since = parts.started_at if seen_at is None else max(seen_at, parts.started_at)
    until = since + timedelta(seconds=parts.leases.lease_s + parts.patience.resume_wait_s)
    away = f"away since {_shown(since)}" if seen_at is not None else "not back since the hub began"
    return f"the agent of {site!r}, {away}; it is waited for until {_shown(until)}"


def _shown(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
