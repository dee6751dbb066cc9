"""Which runs of an agent were given a job and brought nothing of it to the hub.

A job that ends its agent would otherwise be resumed by every new run for ever, and take
the other jobs of the site with it. In memory: a hub that restarts counts anew.
"""

import threading
from typing import Final

MAX_VAIN_RUNS: Final = 10


class VainRuns:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, set[str]] = {}

    def given(self, job_id: str, run_id: str) -> None:
        """A run gets the job after another one left it; to tell it again changes nothing."""
        with self._lock:
            self._runs.setdefault(job_id, set()).add(run_id)

    def brought_on(self, job_id: str) -> None:
        """More of the job arrived, or it has ended."""
        with self._lock:
            self._runs.pop(job_id, None)

    def too_many(self, job_id: str) -> int:
        """How many runs in a row had the job in vain before the last one; 0 while it may go on."""
        with self._lock:
            runs = len(self._runs.get(job_id, ()))
        return runs if runs > MAX_VAIN_RUNS else 0
