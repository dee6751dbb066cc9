"""The DiskReader that speaks NFC to an ESXi host."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import structlog

from agent.areas import Area
from agent.cancellation import Cancellation
from agent.transports.disk_reader import Extent
from agent.transports.errors import (
    AllocationUnknown,
    NfcProtocolViolation,
    ReaderClosed,
    TransportError,
)
from agent.transports.nfc import authd
from agent.transports.nfc.aio import Compression, OpenedFile
from agent.transports.nfc.allocation import allocated_areas
from agent.transports.nfc.connection import Connection, Deadline
from agent.transports.nfc.reads import ReadAhead
from agent.transports.nfc.session import RequestRefused, Session
from agent.transports.nfc.ticket import NfcTicket, Transport

_log = structlog.get_logger(__name__)

REQUESTS_OUTSTANDING = 4
"""Enough to keep host and network busy at once; see NfcBudget for what they cost the host."""

OPEN_TIMEOUTS = 2
"""Opening a disk takes about ten answers; all together may take this many time-outs."""

FAREWELL_TIMEOUT_S = 5.0


class NfcDiskReader:
    """One disk file on one connection (see DiskReader for the contract).

    `_in_use` is held while a thread is between a request and its reply, never
    while a caller looks at an extent. Who holds it may touch the descriptor,
    so `close` from another thread only cuts the stream and leaves the
    descriptor's end to the thread that is reading.
    """

    def __init__(
        self,
        connection: Connection,
        session: Session,
        opened: OpenedFile,
        compression: Compression,
        requests: int,
    ) -> None:
        self._connection = connection
        self._session = session
        self._opened = opened
        self._path = session.path
        self._compression = compression
        self._requests = requests
        self._in_use = threading.Lock()
        self._closed = False
        self._clean = True

    @classmethod
    def open(
        cls,
        ticket: NfcTicket,
        path: str,
        *,
        transport: Transport = "nbdssl",
        timeout_s: float = 60.0,
        compression: Compression | None = None,
        requests: int = REQUESTS_OUTSTANDING,
        stop: Cancellation | None = None,
    ) -> Self:
        """Connect to the ticket's host and open `path` ("[datastore] folder/file.vmdk").

        `compression` None: SkipZ where the data is encrypted, as holes then cost
        nothing; none in plain text, where dense data comes faster without.
        `requests`: the most outstanding at a time, for each of which the host keeps
        LARGEST_READ_BYTES of buffer.

        `timeout_s` bounds each answer of the host, `OPEN_TIMEOUTS` of them bound `open`,
        and `stop` breaks `open` off.

        Raises TransportErrors; nothing is left open then.
        """
        if compression is None:
            compression = Compression.SKIPZ if transport == "nbdssl" else Compression.NONE
        deadline = Deadline(OPEN_TIMEOUTS * timeout_s)
        connection = Connection.dial(ticket, path, timeout_s)
        try:
            with (stop or Cancellation()).calling(lambda _: connection.abort()):
                connection.set_deadline(deadline)
                authd.log_in(connection, ticket, path, transport)
                session = Session(connection, ticket, path)
                session.start(requests)
                opened = session.open_file()
                connection.set_deadline(None)
        except NfcProtocolViolation as error:
            connection.close()
            error.source = f"{ticket.host} ({path})"
            raise
        except BaseException:
            connection.close()
            raise
        return cls(connection, session, opened, compression, requests)

    @property
    def capacity_bytes(self) -> int:
        return self._opened.capacity_bytes

    @property
    def compression(self) -> Compression:
        """What is asked for at the moment."""
        return self._compression

    def allocated_areas(self) -> list[Area]:
        with self._using("asking for allocated areas"):
            try:
                return allocated_areas(self._session, self._opened)
            except AllocationUnknown:
                # The whole disk is going to be read, mostly holes if it is thin.
                self._compression = Compression.SKIPZ
                raise

    def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
        ahead = ReadAhead(
            self._session,
            self._opened,
            areas,
            compression=self._compression,
            depth=self._requests,
        )
        # While replies are owed, no other request can be answered: not even a farewell.
        self._clean = False
        try:
            while True:
                with self._using("reading"):
                    extent = ahead.next()
                if extent is None:
                    return
                yield extent
        finally:
            if ahead.outstanding:
                self.close()
            elif not self._closed:
                self._clean = True

    @contextmanager
    def _using(self, doing: str) -> Iterator[None]:
        """Hold the connection for one exchange. Raises ReaderClosed."""
        if not self._in_use.acquire(blocking=False):
            raise ReaderClosed(self._path)  # a second thread, or `close` at this moment
        try:
            if self._closed:
                raise ReaderClosed(self._path)
            self._connection.doing = doing
            yield
        except AllocationUnknown:
            raise
        except BaseException as error:
            self._clean = False
            stopped = self._closed
            self._closed = True
            self._connection.close()
            if isinstance(error, NfcProtocolViolation):
                error.source = f"{self._session.host} ({self._path})"
            if stopped and not isinstance(error, ReaderClosed):
                raise ReaderClosed(self._path) from error
            raise
        finally:
            self._in_use.release()
            if self._closed:
                self._end()

    def clock_s(self) -> float:
        return time.monotonic()  # whoever opened it had its turn

    def abort(self) -> None:
        """End what another thread waits for, which then raises; blocks on nothing."""
        self._connection.abort()

    def close(self) -> None:
        self._closed = True
        self._end()

    def _end(self) -> None:
        """Close the descriptor, or make the thread that uses it do so."""
        if not self._in_use.acquire(blocking=False):
            self._connection.abort()
            return
        polite = False
        try:
            if self._clean:
                self._clean = False
                self._session.finish(self._opened.handle, Deadline(FAREWELL_TIMEOUT_S))
                polite = True
        except (RequestRefused, TransportError) as error:
            # The disk was only read: a broken farewell loses nothing.
            _log.debug("nfc_farewell_failed", path=self._path, error=str(error))
        finally:
            self._connection.close(polite=polite)
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
