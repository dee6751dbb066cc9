"""One hub a catalog: a second one would fail the jobs of the first as left over.

On a server the lock is a named one (GET_LOCK) of a connection that does nothing
else: the server gives it back when the connection or the hub's machine is gone.
One thread looks every few seconds whether it is still held, and takes it again
after the connection was lost. On SQLite it is a locked file beside the
database's, held by the kernel for the process.

Named locks are of one server: nodes of a Galera cluster do not share them.
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Protocol
from uuid import uuid4

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential,
    wait_fixed,
)
from tenacity.nap import sleep_using_event

from hub.catalog.engine import Catalog
from hub.catalog.engines import single_connections
from hub.errors import CatalogUnavailable
from shared.errors import ConfigurationError

LOCK_SUFFIX: Final = ".hub-lock"
# A hub that has just ended, or a look at the lock, may still hold it.
WAIT_S: Final = 3
CHECK_INTERVAL_S: Final = 5.0
_STATEMENT_TIMEOUT_S: Final = 10
_JOIN_S: Final = 2.0
_UNKNOWN: Final = "whether another sendense-hub uses it cannot be found out"
_log = structlog.get_logger(__name__)


class CatalogTaken(ConfigurationError):
    """Another program holds the catalog, or may hold it."""


class _Lock(Protocol):
    def acquire(self) -> None:
        """Raises CatalogTaken, CatalogUnavailable."""

    def keep(self) -> None:
        """Look, and take it again if it was lost. Raises as `acquire`."""

    def is_held_elsewhere(self) -> bool:
        """Whether another process has it now. Raises CatalogUnavailable."""

    def release(self) -> None:
        """May be called twice."""


class HubLock:
    """`with HubLock(catalog) as lock:` no other hub serves from it, nor changes its schema.

    Should another one take it while the connection is lost, or should a defect keep
    this one from knowing, `taken` is set and `on_taken` called, by the thread that looks.
    """

    def __init__(
        self,
        catalog: Catalog,
        on_taken: Callable[[], None] = lambda: None,
        *,
        check_interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        self._lock: _Lock = _FileLock(catalog) if catalog.is_sqlite else _ServerLock(catalog)
        self._on_taken = on_taken
        self._check_interval_s = check_interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hub-lock", daemon=True)
        self.taken: CatalogTaken | None = None

    def is_held_elsewhere(self) -> bool:
        """Whether another process has it now; takes nothing. Raises CatalogUnavailable."""
        return self._lock.is_held_elsewhere()

    def __enter__(self) -> "HubLock":
        """Raises CatalogTaken, CatalogUnavailable."""
        self._lock.acquire()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join(_JOIN_S)
        # A thread that waits for a server that is away ends with the process, and
        # its connection with it.
        if not self._thread.is_alive():
            self._lock.release()

    def _watch(self) -> None:
        while not self._stopping.wait(self._check_interval_s):
            try:
                self._patiently(self._lock.keep)
            except RetryError:
                return  # stopping
            except CatalogTaken as error:
                _log.error("catalog_taken", error=str(error))
                self._end(error)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody would look any more
                _log.exception("catalog_lock_unknown")
                self._end(CatalogTaken("catalog", f"{_UNKNOWN}: {error}"))
                return

    def _end(self, why: CatalogTaken) -> None:
        self.taken = why
        self._on_taken()

    def _patiently(self, keep: Callable[[], None]) -> None:
        """For as long as the server is away: it alone can say who holds the lock."""

        def tell(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome is not None:
                _log.warning("catalog_lock_lost", error=str(state.outcome.exception()))

        Retrying(
            retry=retry_if_exception_type(CatalogUnavailable),
            stop=stop_when_event_set(self._stopping),
            wait=wait_exponential(multiplier=0.2, max=5),
            sleep=sleep_using_event(self._stopping),
            before_sleep=tell,
        )(keep)


class _FileLock:
    """A lock on the file, whichever path leads to it."""

    def __init__(self, catalog: Catalog) -> None:
        database = Path(os.path.realpath(catalog.file))
        # Not on the database itself: closing another descriptor of it would undo
        # SQLite's own locks in this process.
        self._path = database.with_name(database.name + LOCK_SUFFIX)
        self._catalog = catalog
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        file = self._open()
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(BlockingIOError),
                stop=stop_after_delay(WAIT_S),
                wait=wait_fixed(0.05),
                reraise=True,
            ):
                with attempt:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise _taken(self._catalog, "") from error
        except OSError as error:
            file.close()
            raise CatalogUnavailable(f"{self._path}: {error.strerror}") from error
        self._file = file

    def keep(self) -> None:
        """The kernel does."""

    def is_held_elsewhere(self) -> bool:
        with self._open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> IO[bytes]:
        try:
            return self._path.open("ab")
        except OSError as error:
            raise CatalogUnavailable(f"{self._path}: {error.strerror}") from error


class _ServerLock:
    """Two named locks of one connection: the database's, and one whose name nobody else knows.

    By the second one this hub recognizes its own connection, which the server
    may go on holding for hours after the network lost it.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._engine = single_connections(catalog.url, _STATEMENT_TIMEOUT_S)
        self._own = f"sendense-hub-{uuid4().hex}"
        self._connection: Connection | None = None

    def acquire(self) -> None:
        with self._catalog.translated():
            connection = self._engine.connect()
            try:
                self._take(connection)
            except BaseException:
                _close(connection)
                raise
        self._connection = connection

    def keep(self) -> None:
        if self._connection is not None:
            try:
                with self._catalog.translated():
                    if self._is_held(self._connection):
                        return
            except (CatalogUnavailable, SQLAlchemyError) as error:
                # Also of a connection in a state that nobody foresaw: a new one has none.
                _log.warning("catalog_lock_lost", error=str(error))
            self.release()
        self.acquire()
        _log.info("catalog_lock_taken_again")

    def is_held_elsewhere(self) -> bool:
        with self._catalog.translated(), self._engine.connect() as connection:
            holder = _holder(connection, _lock_name(connection))
            return holder is not None and holder != _holder(connection, self._own)

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            _close(connection)

    def _take(self, connection: Connection) -> None:
        name = _lock_name(connection)
        ghost = _holder(connection, self._own)
        if ghost is not None:
            # It may end by itself at this moment.
            with suppress(SQLAlchemyError):
                connection.execute(text("KILL CONNECTION :ghost"), {"ghost": ghost})
        for wanted in (name, self._own):
            got = connection.scalar(
                text("SELECT GET_LOCK(:name, :wait_s)"), {"name": wanted, "wait_s": WAIT_S}
            )
            if got is None:
                raise CatalogUnavailable(f"{self._catalog}: the server gave no named lock")
            if got != 1:
                raise _taken(self._catalog, _host_of_holder(connection, wanted))

    def _is_held(self, connection: Connection) -> bool:
        own = int(connection.scalar(text("SELECT CONNECTION_ID()")) or 0)
        return _holder(connection, _lock_name(connection)) == own


def _lock_name(connection: Connection) -> str:
    """Of the database, as the server tells its databases apart. At most 64 characters."""
    folds, database = connection.execute(text("SELECT @@lower_case_table_names, DATABASE()")).one()
    name = str(database).lower() if int(folds) else str(database)
    return f"sendense-hub-of-{hashlib.sha256(name.encode()).hexdigest()[:40]}"


def _holder(connection: Connection, name: str) -> int | None:
    """The connection that has the lock."""
    found = connection.scalar(text("SELECT IS_USED_LOCK(:name)"), {"name": name})
    return None if found is None else int(found)


def _host_of_holder(connection: Connection, name: str) -> str:
    """Which machine's, where the server tells: connections of the same user."""
    host = connection.scalar(
        text("SELECT host FROM information_schema.processlist WHERE id = IS_USED_LOCK(:name)"),
        {"name": name},
    )
    return str(host or "")


def _taken(catalog: Catalog, host: str) -> CatalogTaken:
    where = f" (from {host})" if host else ""
    return CatalogTaken(
        "catalog", f"another sendense-hub{where} uses {catalog}; a catalog has one hub at a time"
    )


def _close(connection: Connection) -> None:
    # What ends anyway may end with an error.
    with suppress(SQLAlchemyError, OSError):
        connection.close()
