"""One agent's session, from its registration to its end, which its jobs outlive.

Two threads: the RPC's yields commands (`AgentLink.commands`); one of its own
reads events, and alone ends what the session began, so that it happens
exactly once however the session ends. The jobs of an agent that does not keep
them end with it.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final

import grpc
import structlog

from hub.catalog.agents import AgentFacts, record_departure, record_registration
from hub.catalog.end_job import LiveJob, live_job_ids, live_jobs
from hub.errors import AgentLost, HubRestarted, HubStopping, ProtocolViolation, SessionReplaced
from hub.jobs.agent_link import AgentLink
from hub.jobs.end import end_or_owe
from hub.jobs.parts import Parts
from hub.jobs.rejoin import settle_jobs, take_jobs
from hub.jobs.session_events import handle_event
from hub.jobs.states import Event, Status
from sendense.v1 import agent_session_pb2 as pb
from shared.errors import InvalidArgument, SendenseError

HEARTBEAT_INTERVAL_S: Final = 10
MAX_SITE_CHARS: Final = 64
_log = structlog.get_logger(__name__)


def serve_session(
    parts: Parts,
    requests: Iterator[pb.SessionRequest],
    *,
    heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S,
) -> Iterator[pb.SessionResponse]:
    """Commands for the agent. Raises the error to end the RPC with."""
    link = AgentLink()
    threading.Thread(
        target=_read,
        args=(parts, link, requests, heartbeat_interval_s),
        name="session",
        daemon=True,
    ).start()
    yield from link.commands(heartbeat_interval_s)


def _read(
    parts: Parts,
    link: AgentLink,
    requests: Iterator[pb.SessionRequest],
    heartbeat_interval_s: float,
) -> None:
    joined = False
    try:
        first = next(requests, None)
        if first is None:
            return
        with link.handling():
            live = _register(parts, link, first)
            joined = True
            registered = pb.SessionRegistered(
                agent_id=link.agent_id,
                heartbeat_interval_s=max(1, round(heartbeat_interval_s)),
                live_job_ids=[job.job_id for job in live if job.status is Status.RUNNING],
                closes_jobs=True,
            )
            link.send(pb.SessionResponse(registered=registered))
            settle_jobs(parts, link, live, set(first.register.job_ids))
        for request in requests:
            if link.closed:
                # Another session has taken over: the agent repeats there what counts.
                break
            with link.handling():
                parts.agents.seen(link, parts.now())
                handle_event(parts, link, request)
    except SendenseError as error:
        _log.warning("session_ended_by_error", site=link.site, error=str(error))
        link.close(error)
    except grpc.RpcError:
        pass  # the connection broke
    except Exception:  # noqa: BLE001 - nobody above to report a defect to
        _log.exception("session_failed_unexpectedly", site=link.site)
        link.close(SendenseError())
    finally:
        link.close()
        if joined:
            _leave(parts, link)


def _of_site(parts: Parts, site: str) -> AbstractContextManager[None]:
    """One session of a site begins or ends at a time: what they record stays in order."""
    return parts.turns.turn(f"the sessions of site {site}")


def _register(parts: Parts, link: AgentLink, request: pb.SessionRequest) -> list[LiveJob]:
    """The site's agent is connected; its jobs that have not ended."""
    if request.WhichOneof("event") != "register":
        raise ProtocolViolation("a session begins with register")
    register = request.register
    site = register.site
    if not site or len(site) > MAX_SITE_CHARS or not site.isprintable() or site != site.strip():
        raise InvalidArgument(
            "register.site", f"must be 1 to {MAX_SITE_CHARS} printable characters"
        )
    link.site = site
    link.hostname = register.hostname
    link.run_id = register.run_id
    link.keeps_jobs = register.keeps_jobs
    link.jobs_in_parallel = register.jobs_in_parallel
    facts = AgentFacts(
        site=site,
        hostname=register.hostname[:255],
        version=register.version[:64],
        vsphere_address=register.vsphere.address[:255],
        vsphere_full_name=register.vsphere.full_name[:255],
        vsphere_api_type=register.vsphere.api_type[:64],
        vsphere_api_version=register.vsphere.api_version[:64],
    )
    now = parts.now()
    with _of_site(parts, site):
        replaced = parts.agents.join(link, now)
        if replaced is not None:
            replaced.close(SessionReplaced(site))
        try:
            with parts.catalog.write() as session:
                link.agent_id = record_registration(session, facts, now).id
                live = live_jobs(session, site)
            take_jobs(parts, link, live, set(register.job_ids))
        except BaseException:
            parts.agents.leave(link)
            raise
    parts.metrics.agents_connected.inc()
    _log.info(
        "agent_connected",
        site=site,
        hostname=register.hostname,
        version=register.version,
        jobs=len(register.job_ids),
        replaces=replaced is not None,
    )
    return live


def _leave(parts: Parts, link: AgentLink) -> None:
    """Let another agent serve the site; jobs that the agent does not keep fail first.

    A job that is started meanwhile finds the link closed and stays queued.
    """
    failed = 0
    try:
        with _of_site(parts, link.site):
            if parts.agents.is_current(link):
                if not link.keeps_jobs:
                    failed = _fail_jobs(parts, link)
                with parts.catalog.write() as session:
                    record_departure(session, link.site, parts.now())
            parts.agents.leave(link)
    except SendenseError as error:
        _log.error("agent_departure_not_recorded", site=link.site, error=str(error))
    except Exception:  # noqa: BLE001 - nobody above to report a defect to
        _log.exception("agent_departure_failed_unexpectedly", site=link.site)
    finally:
        parts.agents.leave(link)
        parts.metrics.agents_connected.dec()
        _log.info("agent_disconnected", site=link.site, failed_jobs=failed)


def _fail_jobs(parts: Parts, link: AgentLink) -> int:
    stopping = isinstance(link.error, HubStopping)
    why: SendenseError = HubRestarted() if stopping else AgentLost(link.site)
    with parts.catalog.read() as session:
        left = [job_id for job_id in live_job_ids(session, link.site) if link.serves(job_id)]
    for job_id in left:
        end_or_owe(parts, job_id, Event.FAILED, why)
    return len(left)
