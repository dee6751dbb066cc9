"""A DiskReader that outlives its connection: what fails is repeated on a new one."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self, TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception

from agent.areas import Area
from agent.cancellation import Cancellation
from agent.errors import SnapshotVanished
from agent.transports.disk_reader import Extent
from agent.transports.errors import (
    AllocationUnknown,
    NfcOpenRefused,
    NfcProtocolViolation,
    NfcReadFailed,
    NfcRunningDisk,
    NfcTicketRefused,
    ReaderClosed,
)
from agent.transports.nfc.connections import NfcConnections
from agent.transports.nfc.owed_areas import AreasFailed, OwedAreas
from agent.transports.nfc.patience import ReconnectPatience, SinceFirstFailure
from agent.transports.nfc.reader import NfcDiskReader
from shared.errors import SendenseError

_log = structlog.get_logger(__name__)
T = TypeVar("T")

SAME_PLACE = 3
"""So many fresh connections are tried for a place of the disk that the host cannot read."""


class ReconnectingReader:
    """One frozen disk, on as many connections as it takes (see DiskReader for the contract).

    Repeated with a new ticket: a cut, a stall, a reply that does not fit, a read
    error, a ticket or session refused, vSphere out of reach; a refusal to open the
    file, as somebody may hold it for a moment, a few times until it was open once.
    Everything else is raised at once, as is the last error when patience ends: it
    names host and disk.

    Every wait ends when the job is cancelled, with the job's error, and at `close`.
    `_in_use` is held by the thread that asks vSphere or the host; `close` and
    cancellations of other threads then leave the tidying up to it.
    """

    def __init__(
        self, connections: NfcConnections, job: Cancellation, patience: ReconnectPatience
    ) -> None:
        self._connections = connections
        self._path = connections.disk.path
        self._patience = patience
        self._reader: NfcDiskReader | None = None
        self._read_errors: Counter[int] = Counter()
        self._opens_refused = 0
        self._in_use = threading.Lock()
        self._stop = Cancellation()
        self._stopped = threading.Event()
        self._ties = ExitStack()
        self._ties.enter_context(self._stop.calling(lambda _: self._stopped.set()))
        self._ties.enter_context(job.calling(self._stop.cancel))

    @classmethod
    def open(
        cls, connections: NfcConnections, job: Cancellation, patience: ReconnectPatience
    ) -> Self:
        """Wait for a place in the host's budget and open the disk.

        Raises TransportErrors, VsphereErrors, the error of `job`; nothing is left open.
        """
        reader = cls(connections, job, patience)
        try:
            with reader._using():
                connections.reserve(reader._stop)  # may last for hours, and is no failure
            reader._repeat(lambda _: None)
        except BaseException:
            reader.close()
            raise
        return reader

    @property
    def capacity_bytes(self) -> int:
        return self._connections.disk.capacity_bytes

    def allocated_areas(self) -> list[Area]:
        try:
            return self._repeat(lambda reader: reader.allocated_areas())
        except AllocationUnknown:
            raise
        except BaseException:
            self.close()
            raise

    def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
        owed = OwedAreas(areas)
        ended = False
        try:
            while (extent := self._repeat(owed.next)) is not None:
                yield extent
            ended = True
        except AreasFailed as failed:
            raise failed.error from failed.error.__cause__
        finally:
            if not ended:
                self.close()

    def clock_s(self) -> float:
        return self._connections.clock.now()

    def _repeat(self, operation: Callable[[NfcDiskReader], T]) -> T:
        """Run it on a connection; on a new one after each failure that may pass."""
        attempts = Retrying(
            retry=retry_if_exception(self._may_pass),
            stop=SinceFirstFailure(self._patience, self.clock_s),
            wait=self._patience.wait_s,
            sleep=self._wait,
            before_sleep=self._tell,
            reraise=True,
        )
        result: T = attempts(self._attempt, operation)
        return result

    def _attempt(self, operation: Callable[[NfcDiskReader], T]) -> T:
        with self._using():
            if self._reader is None:
                self._reader = self._connections.connect(self._stop)
            reader = self._reader
            with self._stop.calling(lambda _: reader.abort()):
                return operation(reader)

    def _may_pass(self, error: BaseException) -> bool:
        if self._stop.error is not None:
            return False
        if isinstance(error, NfcReadFailed):
            self._read_errors[error.offset_bytes] += 1
            return self._read_errors[error.offset_bytes] <= SAME_PLACE
        if isinstance(error, NfcTicketRefused):
            return self._connections.opened_before
        if isinstance(error, NfcRunningDisk):
            return False
        if isinstance(error, NfcOpenRefused):
            self._opens_refused += 1
            return (
                self._connections.opened_before or self._opens_refused < self._patience.first_opens
            )
        if isinstance(error, SnapshotVanished):
            return False  # for the reader; another job has another snapshot
        if isinstance(error, NfcProtocolViolation):
            return True
        return isinstance(error, SendenseError) and error.retryable

    def _wait(self, seconds: float) -> None:
        self._stopped.wait(seconds)  # the next attempt finds out why it ended

    def _tell(self, state: RetryCallState) -> None:
        assert state.outcome is not None and state.next_action is not None
        error = state.outcome.exception()
        _log.warning(
            "disk_is_read_on_a_new_connection",
            path=self._path,
            attempt=state.attempt_number + 1,
            wait_s=round(state.next_action.sleep, 2),
            error=str(error),
            code=error.code if isinstance(error, SendenseError) else None,
        )

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Hold the connection for one exchange; a failed one ends it. Raises ReaderClosed."""
        if not self._in_use.acquire(blocking=False):
            raise ReaderClosed(self._path)  # a second thread, or `close` at this moment
        try:
            self._stop.check()
            yield
        except AllocationUnknown:
            raise
        except BaseException as error:
            self._disconnect()
            why = self._stop.error
            if why is not None and why is not error:
                raise why from error
            raise
        finally:
            self._in_use.release()
            if self._stop.error is not None:
                self._end()

    def _disconnect(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def close(self) -> None:
        self._stop.cancel(ReaderClosed(self._path))
        self._end()

    def _end(self) -> None:
        """Let go of everything, or let the thread do it that is in an exchange."""
        if not self._in_use.acquire(blocking=False):
            return
        try:
            self._disconnect()
            self._connections.close()
            self._ties.close()
        finally:
            self._in_use.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
