"""Who gave a sign of life for which job, and when: on the monotonic clock, in memory.

A lease begins when a job is handed to an agent, or found at the hub's start. Whatever
the agent tells or sends of the job renews it. The reaper looks for those that are over.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

LEASE_S: Final = 90.0


class Leases:
    """Thread-safe."""

    def __init__(
        self, lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lease_s = lease_s
        self._clock = clock
        self._lock = threading.Lock()
        self._renewed_at: dict[str, float] = {}

    def begin(self, job_id: str) -> None:
        """The job is an agent's, or may become one's again, from now on."""
        with self._lock:
            self._renewed_at[job_id] = self._clock()

    def begin_if_none(self, job_id: str) -> None:
        """As `begin`, of a job that has no lease yet."""
        with self._lock:
            self._renewed_at.setdefault(job_id, self._clock())

    def renew(self, job_ids: Iterable[str]) -> None:
        """A sign of life of these jobs; those without a lease get none by it."""
        with self._lock:
            now = self._clock()
            for job_id in job_ids:
                if job_id in self._renewed_at:
                    self._renewed_at[job_id] = now

    def end(self, job_id: str) -> None:
        """The job has ended, or waits in the queue of an agent that is there."""
        with self._lock:
            self._renewed_at.pop(job_id, None)

    def holds(self, job_id: str) -> bool:
        """Whether the job has a lease, over or not."""
        with self._lock:
            return job_id in self._renewed_at

    @property
    def lease_s(self) -> float:
        """How long a lease lasts without a sign of life."""
        return self._lease_s

    def over(self) -> dict[str, float]:
        """The jobs whose lease is over, and for how many seconds."""
        with self._lock:
            limit = self._clock() - self._lease_s
            return {
                job_id: limit - renewed_at
                for job_id, renewed_at in self._renewed_at.items()
                if renewed_at < limit
            }
