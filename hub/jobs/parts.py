"""What the work on jobs needs, wired once (hub/main.py) and handed to every function."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hub.catalog.engine import Catalog
from hub.jobs.active_uploads import ActiveUploads
from hub.jobs.agent_directory import AgentDirectory
from hub.jobs.answer_deadlines import AnswerDeadlines
from hub.jobs.board import JobBoard
from hub.jobs.folder_calls import FolderCalls
from hub.jobs.leases import Leases
from hub.jobs.owed_ends import OwedCompletions, OwedEnds
from hub.jobs.queue import JobQueue
from hub.jobs.reads import ActiveReads
from hub.jobs.recovery import Recovery
from hub.jobs.told import Told
from hub.jobs.turns import Turns
from hub.jobs.vain_runs import VainRuns
from hub.metrics import Metrics
from shared.snapshot_alarms import AlarmLimits


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the hub waits before it ends a job itself, in seconds."""

    sweep_interval_s: float = 30.0
    part_s: float = 600.0  # for the next part of an upload, or that a restore's is taken
    # For the agent of a job whose lease is over, before the job fails.
    resume_wait_s: float = 1800.0


@dataclass(frozen=True)
class Parts:
    """Thread-safe, as all its parts are."""

    catalog: Catalog
    board: JobBoard = field(default_factory=JobBoard)
    uploads: ActiveUploads = field(default_factory=ActiveUploads)
    agents: AgentDirectory = field(default_factory=AgentDirectory)
    deadlines: AnswerDeadlines = field(default_factory=AnswerDeadlines)
    owed: OwedEnds = field(default_factory=OwedEnds)
    completions: OwedCompletions = field(default_factory=OwedCompletions)
    leases: Leases = field(default_factory=Leases)
    queue: JobQueue = field(default_factory=JobQueue)
    recovery: Recovery = field(default_factory=Recovery)
    reads: ActiveReads = field(default_factory=ActiveReads)
    turns: Turns = field(default_factory=Turns)
    told: Told = field(default_factory=Told)
    vain_runs: VainRuns = field(default_factory=VainRuns)
    folders: FolderCalls = field(default_factory=FolderCalls)
    metrics: Metrics = field(default_factory=Metrics)
    patience: Patience = Patience()
    alarm_limits: AlarmLimits = field(default_factory=AlarmLimits)
    now: Callable[[], datetime] = utc_now
    started_at: datetime = field(default_factory=utc_now)
