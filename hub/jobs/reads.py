"""Which restore points are being read, and which are being deleted: never both."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from hub.errors import CatalogUnavailable, RestoreRunning, RestoreStalled

# A deletion's transaction takes moments; it may wait for locks of the database.
WAIT_S: Final = 60.0
_log = structlog.get_logger(__name__)


class ActiveReads:
    """Thread-safe.

    A restore of a job reads the layers of jobs below it, too. Those are not named
    here: whoever deletes one of them deletes, or is refused for, what builds on it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readings: set[Reading] = set()
        self._deleting: Counter[str] = Counter()

    @contextmanager
    def reading(
        self, job_id: str, cancel: Callable[[], object] = lambda: None, *, timeout_s: float = WAIT_S
    ) -> Iterator["Reading"]:
        """The job is not deleted inside, until the reading is released.

        Enter it before its rows are looked at. `cancel` breaks the RPC off. Waits for a
        deletion of the job that has begun. Raises CatalogUnavailable when that takes
        too long.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._deleting[job_id], timeout_s):
                raise CatalogUnavailable(f"the deletion of {job_id} does not end")
            reading = Reading(job_id, cancel)
            self._readings.add(reading)
        try:
            yield reading
        finally:
            with self._changed:
                self._readings.discard(reading)

    @contextmanager
    def closed_for(self, job_ids: Collection[str]) -> Iterator[None]:
        """No restore of the jobs begins inside. Raises RestoreRunning when one is going on."""
        with self._changed:
            being_read = {one.job_id for one in self._readings if one.reads}
            for job_id in job_ids:
                if job_id in being_read:
                    raise RestoreRunning(job_id)
            self._deleting.update(job_ids)
        try:
            yield
        finally:
            with self._changed:
                for job_id in job_ids:
                    _count_down(self._deleting, job_id)
                self._changed.notify_all()

    def expire(self, limit_s: float) -> None:
        """Fail the restores whose clients have taken nothing for so long."""
        with self._changed:
            readings = list(self._readings)
        for reading in readings:
            reading.expire(limit_s)

    def count(self) -> int:
        """Restores going on."""
        with self._changed:
            return len(self._readings)


class Reading:
    """A restore that reads layers. Thread-safe; the RPC's thread gives."""

    def __init__(self, job_id: str, cancel: Callable[[], object]) -> None:
        self.job_id = job_id
        self.reads = True  # its layers are needed
        self._cancel = cancel
        self._lock = threading.Lock()
        self._giving_since: float | None = None
        self._stalled: RestoreStalled | None = None

    def release(self) -> None:
        """All has been read: the job may be deleted."""
        self.reads = False

    @contextmanager
    def giving(self) -> Iterator[None]:
        """The client is to take a part inside. Raises RestoreStalled when it took too long."""
        with self._lock:
            self._giving_since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._giving_since = None
        if self._stalled is not None:
            raise self._stalled

    def expire(self, limit_s: float) -> None:
        """Fail the restore when its client has taken nothing for so long.

        A client that goes on is told why. One that does not holds a thread, which a
        part that is being sent cannot leave: after as long again the RPC is cancelled.
        """
        with self._lock:
            if self._giving_since is None:
                return
            waited_s = time.monotonic() - self._giving_since
            if waited_s > limit_s and self._stalled is None:
                # From here on no layer is read: `giving` raises.
                self._stalled = RestoreStalled(self.job_id, round(limit_s))
                self.release()
                _log.warning("restore_stalled", job_id=self.job_id, silent_s=round(waited_s))
        if waited_s > 2 * limit_s:
            self._cancel()


def _count_down(counts: Counter[str], job_id: str) -> None:
    counts[job_id] -= 1
    if not counts[job_id]:
        del counts[job_id]
