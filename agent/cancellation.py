"""The end of a job, asked for from anywhere: by the hub, a signal, or the job's own first error."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancellation:
    """A reason to stop that is set once; thread-safe.

    The first error wins and stays. Whoever blocks on something registers a
    callback that unblocks it; callbacks run in the cancelling thread, must not
    block, and run at once when the reason is there already.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._callbacks: dict[int, Callable[[Exception], None]] = {}
        self._next_key = 0

    @property
    def error(self) -> Exception | None:
        """Why to stop, or None."""
        with self._lock:
            return self._error

    def cancel(self, error: Exception) -> None:
        """Set the reason, unless there is one already."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback(error)

    def check(self) -> None:
        """Raise the reason if there is one."""
        if (error := self.error) is not None:
            raise error

    @contextmanager
    def calling(self, callback: Callable[[Exception], None]) -> Iterator[None]:
        """While inside, cancelling calls `callback` with the reason."""
        with self._lock:
            key = self._next_key
            self._next_key += 1
            self._callbacks[key] = callback
            error = self._error
        try:
            if error is not None:
                callback(error)
            yield
        finally:
            with self._lock:
                del self._callbacks[key]


NEVER_CANCELLED = Cancellation()
"""Of work that nobody ends early. Nobody cancels it."""
