"""Whether the hub is there, as the session tells, and pauses that end when it comes back."""

import threading
import time
from collections.abc import Callable

from agent.cancellation import Cancellation


class HubPresence:
    """Thread-safe. The session's thread calls `came` and `went`; jobs ask and wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()  # guards what follows
        self._came = 0  # how often
        self._away_since: float | None = clock()

    def came(self) -> None:
        """The hub registered the agent: whoever pauses tries again."""
        with self._changed:
            self._came += 1
            self._away_since = None
            self._changed.notify_all()

    def went(self) -> None:
        """The session ended."""
        with self._changed:
            if self._away_since is None:
                self._away_since = self._clock()

    def away_s(self) -> float:
        """Seconds since the session ended; 0 while there is one."""
        with self._changed:
            return 0.0 if self._away_since is None else self._clock() - self._away_since

    def pause(self, seconds: float, cancellation: Cancellation) -> None:
        """Wait so long, or until the hub comes back. Raises the cancellation's error."""
        with self._changed:
            came = self._came
        with cancellation.calling(lambda _: self._wake()), self._changed:
            self._changed.wait_for(
                lambda: cancellation.error is not None or self._came != came, seconds
            )
        cancellation.check()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
