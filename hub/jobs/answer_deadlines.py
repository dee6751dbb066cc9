"""Deadlines for agents that were asked to end a job."""

import threading
from collections.abc import Callable


class AnswerDeadlines:
    """Thread-safe. One timer a job; it is gone when the job has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._timers: dict[str, threading.Timer] = {}
        self._closed = False

    def start(self, job_id: str, timeout_s: float, overdue: Callable[[], None]) -> None:
        """Call `overdue` after that time, unless the job ends first. A second start changes nothing."""
        with self._lock:
            if self._closed or job_id in self._timers:
                return
            timer = threading.Timer(timeout_s, overdue)
            timer.daemon = True
            self._timers[job_id] = timer
            timer.start()

    def runs(self, job_id: str) -> bool:
        """Whether the answer is still waited for."""
        with self._lock:
            return job_id in self._timers

    def stop(self, job_id: str) -> None:
        """The job has ended."""
        with self._lock:
            timer = self._timers.pop(job_id, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Stop all timers; none is started any more."""
        with self._lock:
            self._closed = True
            timers = list(self._timers.values())
            self._timers.clear()
        for timer in timers:
            timer.cancel()
