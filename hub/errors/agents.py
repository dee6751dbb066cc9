"""Agents and their sessions."""

from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


@dataclass(eq=False)
class AgentAway(SendenseError):
    """The VM is known, but its site's agent is not connected."""

    code: ClassVar[str] = "AGENT_AWAY"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the agent of site {site!r} is not connected; start it and try again"

    site: str


@dataclass(eq=False)
class AgentRemoved(AgentAway):
    """The VM was backed up before, but its site has no agent any more."""

    text: ClassVar[str] = (
        "site {site!r} has no agent any more: it was removed; "
        "start an agent with that site's name, then try again"
    )


@dataclass(eq=False)
class AgentNotFound(SendenseError):
    """No agent ever registered for the site."""

    code: ClassVar[str] = "AGENT_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "site {site!r} has no agent: none registered, or it was removed; "
        "sendense agent list shows all"
    )

    site: str


@dataclass(eq=False)
class AgentDraining(SendenseError):
    """No new backup may start at the site."""

    code: ClassVar[str] = "AGENT_DRAINING"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "site {site!r} is being drained: no new backup starts there until sendense agent resume"
    )

    site: str


@dataclass(eq=False)
class AgentConnected(SendenseError):
    """An agent that is connected is not forgotten."""

    code: ClassVar[str] = "AGENT_CONNECTED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "the agent of site {site!r} is connected; stop it first, then remove it"

    site: str


@dataclass(eq=False)
class AgentHasJobs(SendenseError):
    """An agent with jobs that have not ended is not forgotten."""

    code: ClassVar[str] = "AGENT_HAS_JOBS"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "site {site!r} has {jobs} jobs that have not ended; wait for their end or cancel them"
    )

    site: str
    jobs: int


@dataclass(eq=False)
class SiteTaken(SendenseError):
    """Another agent serves the site."""

    code: ClassVar[str] = "SITE_TAKEN"
    status: ClassVar[StatusCode] = StatusCode.ALREADY_EXISTS
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "site {site!r} is served by the agent on {hostname!r} already"

    site: str
    hostname: str


@dataclass(eq=False)
class ProtocolViolation(SendenseError):
    """A peer said what the protocol has no place for."""

    code: ClassVar[str] = "PROTOCOL_VIOLATION"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "{problem}"

    problem: str


@dataclass(eq=False)
class AgentSilent(SendenseError):
    """The agent sent nothing for too long."""

    code: ClassVar[str] = "AGENT_SILENT"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the agent of site {site!r} sent nothing for {silent_s} s"

    site: str
    silent_s: int


@dataclass(eq=False)
class AgentLost(SendenseError):
    """The session of the job's agent ended, or never took the job."""

    code: ClassVar[str] = "AGENT_LOST"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the hub lost the agent of site {site!r} before the backup had ended"

    site: str


@dataclass(eq=False)
class AgentStayedAway(AgentLost):
    """The job waited for its agent, which did not come back."""

    text: ClassVar[str] = (
        "the agent of site {site!r} has been away from {job_id} for {away_s} s: "
        "start the agent, then sendense job retry {job_id}"
    )

    job_id: str
    away_s: int


@dataclass(eq=False)
class AgentEndedAtJob(AgentLost):
    """Run after run of the agent was given the job, and ended before anything of it arrived."""

    text: ClassVar[str] = (
        "{runs} runs of the agent of site {site!r} ended one after the other, and none brought "
        "{job_id} on: find out from its log what ends it, then sendense job retry {job_id}"
    )

    job_id: str
    runs: int


@dataclass(eq=False)
class SessionReplaced(SendenseError):
    """The same run of the agent has begun another session."""

    code: ClassVar[str] = "SESSION_REPLACED"
    status: ClassVar[StatusCode] = StatusCode.ABORTED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the agent of site {site!r} has begun another session"

    site: str


@dataclass(eq=False)
class AgentReported(SendenseError):
    """The agent gave up on the job, for the reason it names."""

    text: ClassVar[str] = "{message}"

    reason: str
    message: str
