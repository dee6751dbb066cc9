"""The hub's wiring: what a running hub consists of, how it starts and how it ends."""

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import structlog

from hub.catalog.hub_lock import HubLock
from hub.config import HubSettings, ListenAddress, catalog_of, loopback_address
from hub.errors import CatalogUnavailable, HubStopping
from hub.garbage import exempt_what_is_there
from hub.jobs.kept_inventories import recall_inventories
from hub.jobs.leases import Leases
from hub.jobs.parts import Parts, Patience
from hub.jobs.queue import JobQueue, Limits
from hub.jobs.reaper import Reaper
from hub.jobs.recover import recover
from hub.jobs.sessions import HEARTBEAT_INTERVAL_S
from hub.jobs.vm_alarms import AlarmCollector
from hub.jobs.waiting import WaitingCollector
from hub.server import HubServer
from shared.errors import ConfigurationError
from shared.snapshot_alarms import AlarmLimits

LOCK_NAME: Final = "hub.lock"
# All together, and two seconds each for gRPC itself and for the reaper, stay below 10 s.
LEAVE_S: Final = 2.5
STOP_GRACE_S: Final = 1.5
SUSPEND_S: Final = 0.5
_log = structlog.get_logger(__name__)


class Hub:
    """One running hub. `with Hub(settings) as hub:` serves at `hub.address` until the end."""

    def __init__(
        self,
        settings: HubSettings,
        *,
        heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S,
        patience: Patience | None = None,
    ) -> None:
        """Nothing runs yet. Raises ConfigurationError."""
        self._settings = settings
        self._listen = loopback_address(settings.listen, key="listen")
        self._heartbeat_interval_s = heartbeat_interval_s
        self.parts = Parts(
            catalog_of(settings),
            leases=Leases(settings.lease_s),
            queue=JobQueue(
                Limits(
                    of_hub=settings.jobs_in_parallel,
                    of_repository=settings.jobs_per_repository,
                    of_datastore=settings.jobs_per_datastore,
                )
            ),
            patience=patience or Patience(resume_wait_s=settings.resume_wait_s),
            alarm_limits=AlarmLimits(settings.snapshot_age_alarm_h, settings.snapshot_count_alarm),
        )
        self.parts.metrics.registry.register(AlarmCollector(self.parts))
        self.parts.metrics.registry.register(WaitingCollector(self.parts))
        self._reaper = Reaper(self.parts)
        self._server = HubServer(self.parts, heartbeat_interval_s=heartbeat_interval_s)
        self.address: ListenAddress = self._listen

    def start(self) -> ListenAddress:
        """Recover from the last run, then serve. Raises ConfigurationError, CatalogUnavailable."""
        self.parts.catalog.require_newest()
        # What is queued counts for the datastores of its VM.
        recall_inventories(self.parts)
        recover(self.parts)
        if self._settings.metrics_listen:
            metrics = loopback_address(self._settings.metrics_listen, key="metrics_listen")
            self.parts.metrics.serve(metrics.host, metrics.port)
        self.address = self._server.start(self._listen)
        self._reaper.start()
        _log.info("hub_ready", address=str(self.address))
        return self.address

    def stop(self) -> None:
        """Suspend uploads, end sessions and watches, then the server; within 10 s.

        Jobs go on when the hub runs again, and their agents with them.
        """
        stopping = HubStopping()
        self._server.refuse()
        self._reaper.stop()
        self.parts.deadlines.close()
        self.parts.uploads.stop(stopping)
        self.parts.agents.close(stopping, LEAVE_S)
        self.parts.board.close()
        self._server.stop(STOP_GRACE_S)
        self._wait_for_uploads()
        self.parts.folders.close()
        self.parts.metrics.stop()
        self.parts.catalog.close()
        _log.info("hub_stopped")

    def _wait_for_uploads(self) -> None:
        """What is durable by the last acknowledgement is so already: it may be waited for in vain."""
        pause, until = threading.Event(), time.monotonic() + SUSPEND_S
        while self.parts.uploads.count() and time.monotonic() < until:
            pause.wait(0.01)

    def __enter__(self) -> "Hub":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class _ToldToEnd(BaseException):
    """SIGTERM came before the hub served: its recovery may be broken off anywhere, and the
    next start's goes on with it."""


def serve(settings: HubSettings, ready_file: Path | None = None) -> None:
    """Run a hub until SIGTERM or SIGINT.

    Raises ConfigurationError, CatalogUnavailable; the latter also when another
    hub has taken the catalog meanwhile.
    """
    serving, wanted = threading.Event(), threading.Event()

    def end(signum: int, frame: FrameType | None) -> None:
        wanted.set()
        if not serving.is_set():
            raise _ToldToEnd

    hub = Hub(settings)
    hub.parts.catalog.require_there()
    lock = HubLock(hub.parts.catalog, on_taken=wanted.set)
    try:
        with only_hub_of(settings.state_dir), lock:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, end)
            with hub:
                serving.set()
                if ready_file is not None:
                    _write_ready(ready_file, hub.address)
                exempt_what_is_there()
                wanted.wait()
    except _ToldToEnd:
        _log.info("hub_stopped_while_it_started")
    if lock.taken is not None:
        raise CatalogUnavailable(f"{lock.taken.problem}: this hub has stopped")


def leave(code: int) -> NoReturn:
    """End the process, as `sys.exit` does, but wait for no thread.

    When the hub has stopped, those that are left are in system calls on a mount that
    hangs, for as long as that does.
    """
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@contextmanager
def only_hub_of(state_dir: Path) -> Iterator[None]:
    """Hold the state folder: a second hub would take the jobs of the first for left over.

    Raises ConfigurationError.
    """
    path = state_dir / LOCK_NAME
    try:
        file = path.open("w")
    except OSError as error:
        raise ConfigurationError(
            "state_dir", f"{path} cannot be written: {error.strerror}"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError("state_dir", f"another hub runs on {state_dir}") from error
        yield


def _write_ready(path: Path, address: ListenAddress) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps({"address": str(address)}) + "\n", encoding="utf-8")
    partial.replace(path)
