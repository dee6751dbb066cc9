"""Jobs that are to end, but whose end could not be recorded yet."""

import threading

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

    def items(self) -> list[tuple[str, tuple[Event, SendenseError]]]:
        """All that are owed now."""
        with self._lock:
            return list(self._owed.items())
