"""What the agent may take of each host's NFC service, for all disks of all jobs together."""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

import structlog

from agent.cancellation import Cancellation
from agent.transports.disk_reader import LARGEST_READ_BYTES
from agent.transports.nfc.reader import REQUESTS_OUTSTANDING

_log = structlog.get_logger(__name__)

TOLD_AGAIN_S = 300.0
"""Between two log lines of one wait."""


@dataclass
class _Host:
    """What is taken of one host, and who waits in which order."""

    connections: int = 0
    requests: int = 0
    queue: deque[object] = field(default_factory=deque)


class NfcBudget:
    """A host keeps buffers for every connection, and has few for all its clients.

    Any thread may call. Whoever asks first is served first. A lease is for one
    connection; as long as connections are left, each finds at least one request's
    buffer: the early ones take fewer than they could use rather than all.
    """

    def __init__(self, connections_per_host: int, buffers_mib_per_host: int) -> None:
        """At least one connection, at least one request's buffer (LARGEST_READ_BYTES)."""
        self._requests = (buffers_mib_per_host << 20) // LARGEST_READ_BYTES
        self._connections = min(connections_per_host, self._requests)
        if self._connections < 1:
            raise ValueError("a budget without a connection, or without a buffer")
        self._changed = threading.Condition()
        self._hosts: dict[str, _Host] = {}

    def lease(self, host: str, cancellation: Cancellation, *, ahead: bool = False) -> "Lease":
        """Wait for a connection to `host`. Raises the error of `cancellation`.

        `ahead` for a disk that was being read already: it goes before those that start.
        """
        turn = object()
        with cancellation.calling(self._wake), self._changed:
            state = self._hosts.setdefault(host, _Host())
            if ahead:
                state.queue.appendleft(turn)
            else:
                state.queue.append(turn)
            try:
                self._wait(host, state, turn, cancellation)
                requests = self._share(state)
                state.connections += 1
                state.requests += requests
            finally:
                state.queue.remove(turn)
                self._forget_idle(host, state)
                self._changed.notify_all()
        return Lease(self, host, requests)

    def _wait(self, host: str, state: _Host, turn: object, cancellation: Cancellation) -> None:
        started_s = time.monotonic()
        waited = False
        while True:
            cancellation.check()
            if state.queue[0] is turn and state.connections < self._connections:
                break
            _log.info(
                "nfc_budget_is_spent",
                host=host,
                connections=state.connections,
                waiting_before=state.queue.index(turn),
                waited_s=round(time.monotonic() - started_s, 1),
            )
            waited = True
            self._wait_for_change(state, turn, cancellation)
        if waited:
            waited_s = round(time.monotonic() - started_s, 1)
            _log.info("nfc_budget_has_room", host=host, waited_s=waited_s)

    def _wait_for_change(self, state: _Host, turn: object, cancellation: Cancellation) -> None:
        """Return when it is this one's turn, the wait was cancelled, or is to be told of again."""
        self._changed.wait_for(
            lambda: (
                cancellation.error is not None
                or (state.queue[0] is turn and state.connections < self._connections)
            ),
            TOLD_AGAIN_S,
        )

    def _share(self, state: _Host) -> int:
        """Requests of the next connection, with one kept for each that may follow it."""
        left = self._requests - state.requests
        kept = self._connections - state.connections - 1
        return min(REQUESTS_OUTSTANDING, left - kept)

    def _wake(self, _error: Exception) -> None:
        with self._changed:
            self._changed.notify_all()

    def _give_back(self, host: str, requests: int) -> None:
        with self._changed:
            state = self._hosts[host]
            state.connections -= 1
            state.requests -= requests
            self._forget_idle(host, state)
            self._changed.notify_all()

    def _forget_idle(self, host: str, state: _Host) -> None:
        if not state.connections and not state.queue:
            del self._hosts[host]


class Lease:
    """One connection to one host; `requests` may be outstanding on it."""

    def __init__(self, budget: NfcBudget, host: str, requests: int) -> None:
        self.host = host
        self.requests = requests
        self._budget = budget
        self._lock = threading.Lock()
        self._held = True

    def release(self) -> None:
        """Give it back, after the connection's end; may be called twice."""
        with self._lock:
            held, self._held = self._held, False
        if held:
            self._budget._give_back(self.host, self.requests)
