"""Calls on repositories' folders, whose file systems may hang, and who works on a folder alone.

A thread in a system call on a dead mount cannot be ended. It is left behind, as
a daemon, and there is at most one for each kind of call and folder.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as NotDone
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from hub.repository import RepositoryUnusable

Answer = TypeVar("Answer")
# Calls of this kind change the folder: `alone` refuses while one runs.
CHANGE: Final = "change"
# How long the end of the hub waits for calls that look at `closed`.
CLOSE_S: Final = 1.0


@dataclass(eq=False)
class FolderCall(Generic[Answer]):
    """A call that has begun."""

    path: str
    future: "Future[Answer]" = field(default_factory=Future)
    begun_at: float = field(default_factory=time.monotonic)
    again: bool = False  # under the lock of FolderCalls

    def is_done(self, until: float) -> bool:
        """Whether it ends by then, on the monotonic clock, however it ends."""
        return not wait([self.future], max(0.0, until - time.monotonic())).not_done

    def answer(self, patience_s: float) -> Answer:
        """Wait until it has run so long, at most. Raises RepositoryUnusable then, and what
        the call raised."""
        left_s = self.begun_at + patience_s - time.monotonic()
        try:
            raised = self.future.exception(max(0.0, left_s))
        except NotDone as error:
            raise RepositoryUnusable(
                self.path,
                f"its file system has not answered for {patience_s:g} s: look at its disk or mount",
            ) from error
        if raised is not None:
            raise raised
        return self.future.result()


class FolderCalls:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], FolderCall[Any]] = {}
        self._alone: set[str] = set()
        self._closed = threading.Event()

    def begin(
        self, kind: str, path: str, work: Callable[[], Answer], *, again: bool = False
    ) -> FolderCall[Answer]:
        """Do `work` in a thread; if such a call of the folder runs, that is the one.

        `again`: that one does its work once more then, since what it saw may be old.
        """
        with self._lock:
            running = self._running.get((kind, path))
            if running is not None:
                running.again = running.again or again
                return running
            call: FolderCall[Answer] = FolderCall(path)
            thread = threading.Thread(
                target=self._run, args=(kind, call, work), name=f"folder-{kind}", daemon=True
            )
            thread.start()
            self._running[kind, path] = call
        return call

    @property
    def closed(self) -> bool:
        """The hub ends: calls that take their time go no further."""
        return self._closed.is_set()

    def close(self) -> None:
        """Have calls end, and wait a moment for them."""
        self._closed.set()
        with self._lock:
            calls = list(self._running.values())
        until = time.monotonic() + CLOSE_S
        for call in calls:
            call.is_done(until)

    @contextmanager
    def alone(self, path: str) -> Iterator[None]:
        """Nobody else makes, marks or unmarks the folder within. Raises RepositoryUnusable
        at once when somebody does."""
        with self._lock:
            if path in self._alone or (CHANGE, path) in self._running:
                raise RepositoryUnusable(path, "another request is at work on it: try again")
            self._alone.add(path)
        try:
            yield
        finally:
            with self._lock:
                self._alone.discard(path)

    def _run(self, kind: str, call: FolderCall[Answer], work: Callable[[], Answer]) -> None:
        while True:
            answer: Any = None
            raised: BaseException | None = None
            try:
                answer = work()
            except BaseException as error:  # noqa: BLE001 - for whoever waits
                raised = error
            with self._lock:
                if not call.again:
                    del self._running[kind, call.path]
                    break
                call.again = False
        if raised is not None:
            call.future.set_exception(raised)
        else:
            call.future.set_result(answer)
