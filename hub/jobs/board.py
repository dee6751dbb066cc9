"""Live progress of running jobs, and who waits for news of them.

Progress is kept in memory while disks move; the rows get the final numbers.
The numbers of one disk are written by its upload's thread alone; anybody reads.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(slots=True)
class DiskProgress:
    """How far one disk's upload is, in bytes."""

    bytes_planned: int = 0
    bytes_read: int = 0
    bytes_transferred: int = 0


class Watch:
    """Waits for news of one job. One thread waits; any thread may close it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._news = False
        self.closed = False

    def wait(self, timeout_s: float) -> bool:
        """True when the job changed since the last wait; False after the time-out or the close."""
        with self._changed:
            self._changed.wait_for(lambda: self._news or self.closed, timeout_s)
            news, self._news = self._news, False
            return news

    def notify(self) -> None:
        """The job changed."""
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the waiting, now and for good."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class JobBoard:
    """Thread-safe. Holds nothing of a job once it is forgotten and nobody watches it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: dict[str, dict[int, DiskProgress]] = {}
        self._watches: dict[str, set[Watch]] = {}
        self._closed = False

    def disk(self, job_id: str, disk_index: int) -> DiskProgress:
        """The disk's numbers, for its upload to write."""
        with self._lock:
            return self._progress.setdefault(job_id, {}).setdefault(disk_index, DiskProgress())

    def progress(self, job_id: str) -> dict[int, DiskProgress]:
        """A copy of the job's numbers, by disk index."""
        with self._lock:
            return {
                index: replace(numbers) for index, numbers in self._progress.get(job_id, {}).items()
            }

    def forget(self, job_id: str) -> None:
        """The job ended; its rows have the numbers."""
        with self._lock:
            self._progress.pop(job_id, None)

    def changed(self, job_id: str) -> None:
        """Wake the job's watchers. Call it after the commit."""
        with self._lock:
            watches = list(self._watches.get(job_id, ()))
        for watch in watches:
            watch.notify()

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Watch]:
        """A watch that misses nothing after this."""
        watch = Watch()
        with self._lock:
            self._watches.setdefault(job_id, set()).add(watch)
            if self._closed:
                watch.close()
        try:
            yield watch
        finally:
            with self._lock:
                self._watches[job_id].discard(watch)
                if not self._watches[job_id]:
                    del self._watches[job_id]

    def close(self) -> None:
        """End all watches, those to come as well."""
        with self._lock:
            self._closed = True
            watches = [watch for group in self._watches.values() for watch in group]
        for watch in watches:
            watch.close()
