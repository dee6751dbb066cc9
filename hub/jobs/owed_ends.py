"""Jobs that are to end, or to be completed, but for which it could not be done yet."""

import threading
from collections.abc import Sequence

from hub.catalog.models import WarningFacts
from hub.errors import AgentLost
from hub.jobs.states import Event
from shared.errors import SendenseError


class OwedEnds:
    """Thread-safe. The first reason of a job is kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owed: dict[str, tuple[Event, SendenseError]] = {}

    def add(self, job_id: str, event: Event, error: SendenseError) -> None:
        """The job is to be ended by the next sweep."""
        with self._lock:
            self._owed.setdefault(job_id, (event, error))

    def paid(self, job_id: str) -> None:
        """The job has ended."""
        with self._lock:
            self._owed.pop(job_id, None)

    def came_back(self, job_id: str) -> None:
        """The job's agent names it: that it was away is no reason for an end any more."""
        with self._lock:
            owed = self._owed.get(job_id)
            if owed is not None and isinstance(owed[1], AgentLost):
                del self._owed[job_id]

    def items(self) -> list[tuple[str, tuple[Event, SendenseError]]]:
        """All that are owed now."""
        with self._lock:
            return list(self._owed.items())


class OwedCompletions:
    """Thread-safe. Jobs of which the agent told the end, and whose repository was away then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._warnings: dict[str, Sequence[WarningFacts]] = {}

    def add(self, job_id: str, warnings: Sequence[WarningFacts]) -> None:
        """The job is to be completed, with these warnings, by the next sweep that can."""
        with self._lock:
            self._warnings[job_id] = warnings

    def done(self, job_id: str) -> None:
        """The job has ended."""
        with self._lock:
            self._warnings.pop(job_id, None)

    def warnings(self, job_id: str) -> Sequence[WarningFacts] | None:
        """What the agent told with the end; None: its end was not told."""
        with self._lock:
            return self._warnings.get(job_id)
