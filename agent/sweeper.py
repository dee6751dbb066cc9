"""Removal of snapshots that earlier jobs of this site left behind."""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from agent.cancellation import Cancellation
from agent.errors import SiteBusy
from agent.vsphere.errors import LoginFailed
from agent.vsphere.site import VsphereSite
from shared.errors import SendenseError

LOCK_WAIT_S: Final = 900.0
# A snapshot that could not be removed grows until it is: try again, but a
# sweep is a question about every VM.
INTERVAL_S: Final = 900.0

_log = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps one at a time. Thread-safe.

    `alive_job_ids` is asked under the lock, and every job passes the lock
    between becoming alive and taking its snapshot. So a sweep never sees the
    snapshot of a job that it does not know to be alive.
    """

    def __init__(self, site: VsphereSite, alive_job_ids: Callable[[], set[str]]) -> None:
        self._site = site
        self._alive_job_ids = alive_job_ids
        self._lock = threading.Lock()
        self._needed = threading.Event()
        self._needed.set()  # whatever ran before this process may have left something
        self._swept_at = 0.0
        self._left_by: set[str] = set()  # jobs that are done with their snapshot, alive or not

    def left_behind(self, job_id: str) -> None:
        """The snapshot of this job stays; the next sweep is to remove it."""
        self._left_by.add(job_id)
        self._needed.set()

    def sweep_if_needed(self) -> None:
        """Sweep when something may be there. Failures are logged; the sweep stays needed.

        Raises LoginFailed.
        """
        due = self._needed.is_set() or time.monotonic() - self._swept_at > INTERVAL_S
        if due and self._lock.acquire(timeout=LOCK_WAIT_S):
            try:
                self._sweep()
            finally:
                self._lock.release()

    def sweep_before_job(self, cancellation: Cancellation) -> None:
        """Sweep where needed, so that the job's VM is clean; wait for a sweep that is running.

        A failing sweep does not fail the job. Raises SiteBusy, LoginFailed, a cancellation.
        """
        end = time.monotonic() + LOCK_WAIT_S
        while not self._lock.acquire(timeout=1.0):
            cancellation.check()
            if time.monotonic() > end:
                raise SiteBusy(LOCK_WAIT_S)
        try:
            if self._needed.is_set():
                self._sweep()
        finally:
            self._lock.release()

    def _sweep(self) -> None:
        self._needed.clear()
        self._swept_at = time.monotonic()
        try:
            removed = self._site.sweep_snapshots(self._alive_job_ids() - self._left_by)
        except LoginFailed:
            self._needed.set()
            raise  # going on would only try the password again
        except SendenseError as error:
            self._needed.set()
            _log.warning("snapshot_sweep_failed", error=str(error))
        else:
            if removed:
                _log.warning("leftover_snapshots_removed", snapshots=removed)
