"""The DiskReader that speaks NFC to an ESXi host."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import structlog

from agent.areas import Area
from agent.transports.disk_reader import Extent
from agent.transports.errors import AllocationUnknown, ReaderClosed, TransportError
from agent.transports.nfc import authd
from agent.transports.nfc.aio import Compression, OpenedFile
from agent.transports.nfc.allocation import allocated_areas
from agent.transports.nfc.connection import Connection, Deadline
from agent.transports.nfc.reads import ReadAhead
from agent.transports.nfc.session import RequestRefused, Session
from agent.transports.nfc.ticket import NfcTicket, Transport

_log = structlog.get_logger(__name__)

REQUESTS_OUTSTANDING = 4
"""8 MiB of the host's about 48 MiB of NFC buffers for all its clients."""

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
        path: str,
        compression: Compression,
    ) -> None:
        self._connection = connection
        self._session = session
        self._opened = opened
        self._path = path
        self._compression = compression
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
    ) -> Self:
        """Connect to the ticket's host and open `path` ("[datastore] folder/file.vmdk").

        `compression` None: SkipZ where the data is encrypted, as holes then cost
        nothing; none in plain text, where dense data comes faster without.

        `timeout_s` bounds each answer of the host, `OPEN_TIMEOUTS` of them bound `open`.

        Raises TransportErrors; nothing is left open then.
        """
        if compression is None:
            compression = Compression.SKIPZ if transport == "nbdssl" else Compression.NONE
        deadline = Deadline(OPEN_TIMEOUTS * timeout_s)
        connection = authd.connect(ticket, transport, timeout_s, deadline)
        try:
            session = Session(connection, ticket)
            session.start(REQUESTS_OUTSTANDING)
            opened = session.open_file(path)
            connection.set_deadline(None)
        except BaseException:
            connection.close()
            raise
        return cls(connection, session, opened, path, compression)

    @property
    def capacity_bytes(self) -> int:
        return self._opened.capacity_bytes

    def allocated_areas(self) -> list[Area]:
        with self._using("asking for allocated areas"):
            try:
                return allocated_areas(self._session, self._opened, self._path)
            except AllocationUnknown:
                # The whole disk is going to be read, mostly holes if it is thin.
                self._compression = Compression.SKIPZ
                raise

    def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
        ahead = ReadAhead(
            self._session,
            self._opened,
            self._path,
            areas,
            compression=self._compression,
            depth=REQUESTS_OUTSTANDING,
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
            self._connection.doing = f"{doing} {self._path}"
            yield
        except AllocationUnknown:
            raise
        except BaseException as error:
            self._clean = False
            stopped = self._closed
            self._closed = True
            self._connection.close()
            if stopped and not isinstance(error, ReaderClosed):
                raise ReaderClosed(self._path) from error
            raise
        finally:
            self._in_use.release()
            if self._closed:
                self._end()

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
                self._connection.set_timeout(FAREWELL_TIMEOUT_S)
                self._session.finish(self._opened.handle)
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
