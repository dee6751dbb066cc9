"""The jobs that wait for a place to run in, and the limits of how many run at a time.

In memory. The rows are the truth: at its start the hub fills the queue from them anew.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many jobs run at a time, at most."""

    of_hub: int = 32
    of_repository: int = 16
    of_datastore: int = 4


@dataclass(frozen=True, slots=True)
class AgentState:
    """The agent of a site, as far as the queue asks for it."""

    jobs_in_parallel: int = 0  # that it runs; 0: no limit
    away: str = ""  # what its jobs wait for, when nothing can be handed to it


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job and what it would use."""

    job_id: str
    site: str
    repository_id: str
    datastores: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """Of a job that waits. `waiting_for` goes on after "waits for"; empty: it is handed out now."""

    position: int  # 1 is the next; 0: it is not queued, for it was handed out
    waiting_for: str


@dataclass(frozen=True, slots=True)
class _Limit:
    key: Key
    at_most: int
    jobs: str

    @property
    def waiting_for(self) -> str:
        if self.at_most == 1:
            return f"the end of the one job that {self.jobs} at a time"
        return f"the end of one of the {self.at_most} jobs that {self.jobs} at a time"


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    job: QueuedJob


AgentOf = Callable[[str], AgentState]
_READY: Final = AgentState()


def _ready(site: str) -> AgentState:
    return _READY


@dataclass
class JobQueue:
    """Thread-safe. First in, first out; a job that a limit holds back lets later ones pass.

    Whoever hands a job out, or withdraws one, holds `handing` from its look at the job to
    its end: so nobody sees a job that is neither queued nor handed out yet.
    """

    limits: Limits = Limits()
    handing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._numbers = 0
        self._queued: dict[str, _Entry] = {}
        self._running: dict[str, _Entry] = {}
        self._in_use: Counter[Key] = Counter()

    def add(self, job: QueuedJob) -> None:
        """The job waits. One that ran waits at its old place, before those that came later."""
        with self._lock:
            if job.job_id not in self._queued:
                known = self._release(job.job_id)
                number = known.number if known is not None else self._next_number()
                self._queued[job.job_id] = _Entry(number, job)

    def took(
        self, job_id: str, site: str, repository_id: str, datastores: Iterable[str] = ()
    ) -> None:
        """The job runs, whatever the limits say."""
        with self._lock:
            if job_id not in self._running:
                queued = self._queued.pop(job_id, None)
                number = queued.number if queued is not None else self._next_number()
                job = QueuedJob(job_id, site, repository_id, frozenset(datastores))
                self._occupy(_Entry(number, job))

    def take(self, job_id: str, agent: AgentState, kept: set[Key] | None = None) -> bool:
        """The job runs from now on, if it waits and nothing holds it back. False: it does not.

        `kept`: of one look at the queue, from its first job on: the datastores of jobs that
        wait for one. A place in each stays free, or a VM with disks on several would
        be passed for ever by those that need one place only.
        """
        with self._lock:
            entry = self._queued.get(job_id)
            if entry is None or self._held_back_by(
                entry.job, agent, set() if kept is None else kept
            ):
                return False
            del self._queued[job_id]
            self._occupy(entry)
            return True

    def put_back(self, job_id: str) -> None:
        """What `take` did is undone."""
        with self._lock:
            entry = self._release(job_id)
            if entry is not None:
                self._queued[job_id] = entry

    def withdraw(self, job_id: str) -> bool:
        """The job waits no longer. False when it did not wait. Within `handing`."""
        with self._lock:
            return self._queued.pop(job_id, None) is not None

    def done(self, job_id: str) -> None:
        """The job has ended."""
        with self._lock:
            self._queued.pop(job_id, None)
            self._release(job_id)

    def waiting(self) -> list[QueuedJob]:
        """The jobs that wait, the next one first."""
        with self._lock:
            return [entry.job for entry in self._in_order()]

    def running(self) -> list[QueuedJob]:
        """The jobs that were handed out and have not ended."""
        with self._lock:
            return [entry.job for entry in self._running.values()]

    def waiting_count(self) -> int:
        """How many jobs wait."""
        with self._lock:
            return len(self._queued)

    def positions(self, agent_of: AgentOf = _ready) -> dict[str, Place]:
        """Every job that waits, by id. The places are 1 to n without a gap."""
        kept: set[Key] = set()
        with self._lock:
            return {
                entry.job.job_id: Place(
                    position, self._held_back_by(entry.job, agent_of(entry.job.site), kept)
                )
                for position, entry in enumerate(self._in_order(), start=1)
            }

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _in_order(self) -> list[_Entry]:
        return sorted(self._queued.values(), key=lambda entry: entry.number)

    def _occupy(self, entry: _Entry) -> None:
        self._running[entry.job.job_id] = entry
        self._in_use.update(_keys(entry.job))

    def _release(self, job_id: str) -> _Entry | None:
        entry = self._running.pop(job_id, None)
        if entry is not None:
            self._in_use.subtract(_keys(entry.job))
            for key in _keys(entry.job):
                if not self._in_use[key]:
                    del self._in_use[key]
        return entry

    def _held_back_by(self, job: QueuedJob, agent: AgentState, kept: set[Key]) -> str:
        """Why the job waits; if for a datastore, places in all of its own are `kept` from now on."""
        if agent.away:
            return agent.away
        for limit in self._limits_of(job, agent):
            if self._in_use[limit.key] >= limit.at_most:
                return limit.waiting_for
        for limit in self._limits_of_datastores(job):
            if self._in_use[limit.key] + (limit.key in kept) >= limit.at_most:
                kept.update(_datastores(job))
                return limit.waiting_for
        return ""

    def _limits_of(self, job: QueuedJob, agent: AgentState) -> Iterator[_Limit]:
        yield _Limit(_HUB, self.limits.of_hub, "this hub runs")
        yield _Limit(
            _repository(job), self.limits.of_repository, "this hub runs into its repository"
        )
        if agent.jobs_in_parallel:
            yield _Limit(_site(job), agent.jobs_in_parallel, f"the agent of {job.site!r} runs")

    def _limits_of_datastores(self, job: QueuedJob) -> Iterator[_Limit]:
        for name in sorted(job.datastores):
            yield _Limit(
                _datastore(job, name),
                self.limits.of_datastore,
                f"are read from datastore {name!r} of {job.site!r}",
            )


_HUB: Final[Key] = ("hub",)


def _repository(job: QueuedJob) -> Key:
    return ("repository", job.repository_id)


def _site(job: QueuedJob) -> Key:
    return ("site", job.site)


def _datastore(job: QueuedJob, name: str) -> Key:
    return ("datastore", job.site, name)


def _datastores(job: QueuedJob) -> list[Key]:
    return [_datastore(job, name) for name in job.datastores]


def _keys(job: QueuedJob) -> list[Key]:
    """All that the job counts for."""
    return [_HUB, _repository(job), _site(job), *_datastores(job)]
