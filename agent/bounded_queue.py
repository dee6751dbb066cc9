"""A bounded queue between two threads that either side can close."""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class QueueClosed(Exception):
    """The queue was closed: nothing will be taken or given any more."""


class QueueEnded(Exception):
    """The giving side is done and everything given was taken."""


class BoundedQueue(Generic[T]):
    """At most `limit` items wait; `put` blocks above that. Thread-safe.

    `end` is the giver's orderly last word: what waits is still taken. `close`
    is anybody's abort: what waits is dropped, and everyone blocked is woken.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._closed = False

    def put(self, item: T) -> None:
        """Add an item, waiting for room. Raises QueueClosed.

        The wait has no deadline of its own: whoever owns the queue watches the
        taker and closes.
        """
        with self._changed:
            while len(self._items) >= self._limit and not self._closed:
                self._changed.wait()
            self._give(item)

    def offer(self, item: T) -> bool:
        """Add an item if there is room. Raises QueueClosed, also after `end`."""
        with self._changed:
            if len(self._items) >= self._limit and not self._closed:
                return False
            self._give(item)
            return True

    def get(self, timeout_s: float) -> T | None:
        """The oldest item, or None when none came in time. Raises QueueEnded, QueueClosed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._items or self._ended or self._closed, timeout=timeout_s
            )
            if self._closed:
                raise QueueClosed
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            if self._ended:
                raise QueueEnded
            return None

    def end(self) -> None:
        """No more items will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Drop everything and wake everyone. May be called twice."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def _give(self, item: T) -> None:
        if self._closed or self._ended:
            raise QueueClosed
        self._items.append(item)
        self._changed.notify_all()
