"""A clock for deadlines that do not count the wait for one's turn at a host."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class TurnClock:
    """Monotonic seconds that stand still inside `waiting`. Any thread may ask; one waits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waited_s = 0.0
        self._waiting_since_s: float | None = None

    def now(self) -> float:
        with self._lock:
            since_s = self._waiting_since_s
            return (self._clock() if since_s is None else since_s) - self._waited_s

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While inside, no time passes."""
        with self._lock:
            since_s = self._waiting_since_s = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._waited_s += self._clock() - since_s
                self._waiting_since_s = None
