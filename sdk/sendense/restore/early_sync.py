"""Syncing while writing: the disk works while clusters are decoded, and the last sync is short."""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

SYNC_EVERY_BYTES: Final = 64 << 20


class EarlySync:
    """Syncs a file in a thread of its own after every 64 MiB written; any thread may report writes.

    The system tells a failed sync once, to whoever asks first: `finish` hands
    such an error on, so that the last sync cannot succeed over lost data.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._unsynced_bytes = 0
        self._running: Future[None] | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="restore-sync")

    def written(self, length_bytes: int) -> None:
        """So many bytes were written. Raises OSError when an earlier sync failed."""
        with self._lock:
            self._unsynced_bytes += length_bytes
            if self._unsynced_bytes < SYNC_EVERY_BYTES:
                return
            if self._running is not None:
                if not self._running.done():
                    return
                self._running.result()
            self._unsynced_bytes = 0
            self._running = self._executor.submit(os.fdatasync, self._fd)

    def finish(self) -> None:
        """Sync everything, the size as well. Raises OSError when any sync failed."""
        with self._lock:
            if self._running is not None:
                self._running.result()
        os.fsync(self._fd)

    def close(self) -> None:
        """Wait for a sync that runs; the file may be closed then. May be called twice."""
        self._executor.shutdown(wait=True)
