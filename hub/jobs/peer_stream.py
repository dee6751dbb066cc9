"""A stream of an agent's requests: who waits for them, who ends it, and why.

Two threads serve such a stream. One takes the requests; the RPC's yields the
answers. Whoever finds an error notes it; the RPC's thread raises it, which ends
the requests as well.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Generic, Protocol, TypeVar

from hub.errors import UploadStalled
from hub.jobs.leases import Leases
from shared.errors import SendenseError

RENEW_INTERVAL_S: Final = 1.0
Request = TypeVar("Request")


class Rpc(Protocol):
    """What a stream needs of its RPC (grpc.ServicerContext has it)."""

    def add_callback(self, callback: Callable[[], None]) -> bool: ...

    def cancel(self) -> object: ...


class PeerStream(Generic[Request]):
    """Thread-safe. `changed` guards `error`, `aborted` and what its user puts under it.

    Requests are taken one by one, none ahead: a peer that is too fast waits in the
    connection, by its flow control.
    """

    def __init__(self, requests: Iterator[Request], rpc: Rpc, leases: Leases) -> None:
        self.job_id = ""  # both known since the first request
        self.disk_index = -1
        self.released = threading.Event()  # nothing of the disk is open any more
        self.changed = threading.Condition()
        self.error: SendenseError | None = None  # the first that was noted
        self.aborted = False  # the error came from outside: the job ended, the hub stops
        self.finished = False  # well: no error is noted any more
        self.rpc_ended = threading.Event()
        self._requests = requests
        self._rpc = rpc
        self._waiting_since: float | None = None  # for the next request
        self._leases = leases
        self._renewed_at = -RENEW_INTERVAL_S
        if not rpc.add_callback(self._end_of_rpc):
            self._end_of_rpc()

    def next(self) -> Request | None:
        """The next request; None at their end. Raises grpc.RpcError when the RPC broke."""
        self._waiting_since = time.monotonic()
        try:
            request = next(self._requests, None)
        finally:
            self._waiting_since = None
        if request is not None:
            self.at_work()
        return request

    def at_work(self) -> None:
        """A sign of life of the job, once it is known; told at most once a second."""
        now = time.monotonic()
        if self.job_id and now - self._renewed_at >= RENEW_INTERVAL_S:
            self._renewed_at = now
            self._leases.renew([self.job_id])

    def over(self) -> bool:
        """Whether nothing more is to be answered. Call it under `changed`."""
        return self.finished or self.error is not None or self.rpc_ended.is_set()

    def finish(self) -> None:
        """All has been done: wake the RPC's thread."""
        with self.changed:
            self.finished = True
            self.changed.notify_all()

    def note(self, error: SendenseError) -> None:
        """The stream's work failed; the first error counts."""
        with self.changed:
            if self.error is None and not self.finished:
                self.error = error
            self.changed.notify_all()

    def abort(self, error: SendenseError) -> None:
        """End the stream; the caller deals with the job."""
        with self.changed:
            if self.error is None and not self.finished:
                self.error, self.aborted = error, True
                self.changed.notify_all()

    def expire(self, limit_s: float) -> None:
        """Fail the stream when it has waited so long for its next request."""
        since = self._waiting_since
        if since is not None and time.monotonic() - since > limit_s:
            self.note(UploadStalled(self.job_id, self.disk_index, round(limit_s)))

    def cancel_rpc(self) -> None:
        """Break the RPC off: the peer takes no answers."""
        self._rpc.cancel()

    def _end_of_rpc(self) -> None:
        self.rpc_ended.set()
        with self.changed:
            self.changed.notify_all()
