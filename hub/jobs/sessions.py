"""One agent's session, from its registration to the failing of what it left.

Two threads: the RPC's yields commands (`AgentLink.commands`); one of its own
reads events, and alone ends what the session began, so that it happens
exactly once however the session ends.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Final

import grpc
import structlog

from hub.catalog.agents import AgentFacts, record_departure, record_registration
from hub.catalog.end_job import live_job_ids
from hub.errors import AgentLost, HubRestarted, HubStopping, ProtocolViolation
from hub.jobs.agent_link import AgentLink
from hub.jobs.end import end_or_owe
from hub.jobs.parts import Parts
from hub.jobs.session_events import handle_event
from hub.jobs.states import Event
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
            _register(parts, link, first)
            joined = True
            registered = pb.SessionRegistered(
                agent_id=link.agent_id, heartbeat_interval_s=max(1, round(heartbeat_interval_s))
            )
            link.send(pb.SessionResponse(registered=registered))
        for request in requests:
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


def _register(parts: Parts, link: AgentLink, request: pb.SessionRequest) -> None:
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
    now = parts.now()
    parts.agents.join(link, now)
    facts = AgentFacts(
        site=site,
        hostname=register.hostname[:255],
        version=register.version[:64],
        vsphere_address=register.vsphere.address[:255],
        vsphere_full_name=register.vsphere.full_name[:255],
        vsphere_api_type=register.vsphere.api_type[:64],
        vsphere_api_version=register.vsphere.api_version[:64],
    )
    try:
        with parts.catalog.write() as session:
            link.agent_id = record_registration(session, facts, now).id
            left = live_job_ids(session, site)
        # What a session before this one could not end; this one never took them.
        for job_id in left:
            if not link.serves(job_id):
                end_or_owe(parts, job_id, Event.FAILED, AgentLost(site))
    except BaseException:
        parts.agents.leave(link)
        raise
    parts.metrics.agents_connected.inc()
    _log.info("agent_connected", site=site, hostname=register.hostname, version=register.version)


def _leave(parts: Parts, link: AgentLink) -> None:
    """Fail the agent's jobs, then let another agent serve the site.

    A job that is started meanwhile finds the link closed and fails itself.
    """
    stopping = isinstance(link.error, HubStopping)
    why: SendenseError = HubRestarted() if stopping else AgentLost(link.site)
    left: Sequence[str] = ()
    try:
        with parts.catalog.read() as session:
            left = live_job_ids(session, link.site)
        for job_id in left:
            end_or_owe(parts, job_id, Event.FAILED, why)
        with parts.catalog.write() as session:
            record_departure(session, link.site, parts.now())
    except SendenseError as error:
        _log.error("agent_departure_not_recorded", site=link.site, error=str(error))
    except Exception:  # noqa: BLE001 - nobody above to report a defect to
        _log.exception("agent_departure_failed_unexpectedly", site=link.site)
    finally:
        parts.agents.leave(link)
        parts.metrics.agents_connected.dec()
        _log.info("agent_disconnected", site=link.site, failed_jobs=len(left))
