"""Which restore points are being read, and which are being deleted: never both."""

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from hub.errors import CatalogUnavailable, RestoreRunning

# A deletion's transaction takes moments; it may wait for locks of the database.
WAIT_S: Final = 60.0


class ActiveReads:
    """Thread-safe.

    A restore of a job reads the layers of jobs below it, too. Those are not named
    here: whoever deletes one of them deletes, or is refused for, what builds on it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reading: Counter[str] = Counter()
        self._deleting: Counter[str] = Counter()

    @contextmanager
    def reading(self, job_id: str, timeout_s: float = WAIT_S) -> Iterator[None]:
        """The job is not deleted inside. Enter it before its rows are looked at.

        Waits for a deletion of the job that has begun. Raises CatalogUnavailable
        when that takes too long.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._deleting[job_id], timeout_s):
                raise CatalogUnavailable(f"the deletion of {job_id} does not end")
            self._reading[job_id] += 1
        try:
            yield
        finally:
            with self._changed:
                _count_down(self._reading, job_id)

    @contextmanager
    def closed_for(self, job_ids: Collection[str]) -> Iterator[None]:
        """No restore of the jobs begins inside. Raises RestoreRunning when one is going on."""
        with self._changed:
            for job_id in job_ids:
                if job_id in self._reading:
                    raise RestoreRunning(job_id)
            self._deleting.update(job_ids)
        try:
            yield
        finally:
            with self._changed:
                for job_id in job_ids:
                    _count_down(self._deleting, job_id)
                self._changed.notify_all()

    def count(self) -> int:
        """Restores going on."""
        with self._changed:
            return self._reading.total()


def _count_down(counts: Counter[str], job_id: str) -> None:
    counts[job_id] -= 1
    if not counts[job_id]:
        del counts[job_id]
