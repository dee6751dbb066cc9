"""The catalog's database: read and write transactions, and its schema."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    TimeoutError,
)
from sqlalchemy.orm import Session

from hub.catalog import schema
from hub.catalog.catalog_url import catalog_url, shown, sqlite_url
from hub.catalog.engines import (
    LOCK_TIMEOUT_S,
    STATEMENT_TIMEOUT_S,
    server_engine,
    sqlite_engine,
)
from hub.catalog.schema import Report, SchemaState, newest_revision
from hub.catalog.server_check import require_fit
from hub.catalog.server_words import in_words
from hub.errors import CatalogUnavailable
from shared.errors import ConfigurationError

__all__ = ["LOCK_TIMEOUT_S", "Catalog", "newest_revision", "sqlite_url"]

# Of a statement that changes a large table, or reads all of it.
MAINTENANCE_STATEMENT_S = 6 * 3600
# A CHECK is violated, as MariaDB and MySQL number it; the driver calls it operational.
_CHECK_VIOLATED = ((4025,), (3819,))
# A statement names an index that is not there, as a server numbers it and SQLite words it.
_NO_INDEX_NUMBER = (1176,)
_NO_INDEX_WORDS = "no such index"


def _silent(line: str) -> None:
    """Nobody wants to hear of progress."""


class Catalog:
    """Thread-safe. `with catalog.write() as session:` is one transaction, committed at the end."""

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        statement_timeout_s: int = STATEMENT_TIMEOUT_S,
    ) -> None:
        """Nothing is opened yet. `password` goes before the URL's own.

        Raises ConfigurationError for an unusable URL.
        """
        self._url = catalog_url(url, password)
        self._engine = (
            sqlite_engine(self._url)
            if self.is_sqlite
            else server_engine(self._url, statement_timeout_s)
        )
        # What one read asks in several statements is of one moment: a completion
        # between them must not show a running job with completed disks. SQLite's
        # transactions are like that anyway.
        self._reading = (
            self._engine
            if self.is_sqlite
            else self._engine.execution_options(isolation_level="REPEATABLE READ")
        )
        self._writing = self._engine.execution_options(sendense_write=True)
        self._writer = threading.Lock()

    @property
    def is_sqlite(self) -> bool:
        """A file; else a server's database."""
        return self._url.get_backend_name() == "sqlite"

    @property
    def url(self) -> URL:
        """With the password; for the modules of this package."""
        return self._url

    @property
    def file(self) -> Path:
        """SQLite's."""
        return Path(self._url.database or "")

    def __str__(self) -> str:
        return shown(self._url)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that changes nothing and sees one moment. Raises CatalogUnavailable."""
        with self.translated(), Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed when the block ends, rolled back when it raises.

        On SQLite it begins IMMEDIATE, so what it reads stays true until it
        commits. Raises CatalogUnavailable, also when the commit fails.
        """
        with (
            self._turn_to_write(),
            self.translated(),
            Session(self._writing, expire_on_commit=False) as session,
        ):
            yield session
            session.commit()

    def require_fit(self) -> None:
        """Raises ConfigurationError for a server that cannot hold a catalog, CatalogUnavailable."""
        with self.translated(), self._engine.connect() as connection:
            if not self.is_sqlite:
                require_fit(connection)

    def require_there(self) -> None:
        """Raises ConfigurationError when SQLite's file is not there: opening would make one."""
        if self.is_sqlite and not self.file.exists():
            raise ConfigurationError(
                "catalog_url",
                f"there is no file {self.file}; name the catalog's file, "
                "or make a catalog with sendense-hub init",
            )

    def upgrade(self, report: Report = _silent) -> None:
        """Bring the schema to the newest revision; creates it in an empty database.

        Raises ConfigurationError when the database is no catalog, or a newer one.
        """
        self.require_fit()
        with self._schema_change() as connection:
            schema.migrate_up(connection, report)

    def downgrade(self, revision: str, report: Report = _silent) -> None:
        """Bring the schema to an older revision; what that cannot hold is lost."""
        with self._schema_change() as connection:
            schema.migrate_down(connection, revision, report)

    def schema_state(self) -> SchemaState:
        """What the database holds. Raises CatalogUnavailable."""
        with self.translated(), self._engine.connect() as connection:
            return schema.schema_state(connection)

    def revision(self) -> str | None:
        """The schema's revision; None for an empty database. Raises CatalogUnavailable."""
        return self.schema_state().revision

    def require_newest(self) -> None:
        """Raises ConfigurationError, saying what to run, unless a hub can serve on it."""
        self.require_fit()
        with self.translated(), self._engine.connect() as connection:
            schema.require_usable(connection)

    @property
    def engine(self) -> Engine:
        """For this package, and the tests of the schema."""
        return self._engine

    def close(self) -> None:
        """Close the idle connections. May be called twice."""
        self._engine.dispose()

    @contextmanager
    def _turn_to_write(self) -> Iterator[None]:
        """Threads that write to SQLite queue here: the wait in SQLite polls, ever more
        rarely, and some of many writers would wait a second for others' milliseconds.

        Raises CatalogUnavailable.
        """
        if not self.is_sqlite:
            yield
            return
        if not self._writer.acquire(timeout=LOCK_TIMEOUT_S):
            raise CatalogUnavailable(f"{self}: another transaction does not end")
        try:
            yield
        finally:
            self._writer.release()

    @contextmanager
    def _schema_change(self) -> Iterator[Connection]:
        """One transaction, where the database has such a thing for tables."""
        with self.translated(), self._writing.connect() as connection:
            driver = connection.connection.dbapi_connection
            assert driver is not None
            if not self.is_sqlite:
                with connection.begin():
                    yield connection
                return
            # Where SQLite cannot alter a table it is made anew, and dropping the old
            # one would take all rows along that refer to it.
            driver.cursor().execute("PRAGMA foreign_keys=OFF")
            try:
                with connection.begin():
                    yield connection
                    schema.require_references(connection)
            finally:
                driver.cursor().execute("PRAGMA foreign_keys=ON")

    @contextmanager
    def translated(self) -> Iterator[None]:
        """The database's errors become CatalogUnavailable, but for defects of ours.

        Raises ConfigurationError for an index that is not there.
        """
        try:
            yield
        except (IntegrityError, DataError, ProgrammingError, NotSupportedError):
            raise  # trying again does not mend it
        except OperationalError as error:
            if error.orig is not None and error.orig.args[:1] in _CHECK_VIOLATED:
                raise IntegrityError(error.statement, error.params, error.orig) from error
            if _lacks_index(error.orig):
                raise ConfigurationError(
                    "catalog",
                    f"its schema is less than revision {newest_revision()} has "
                    f"({in_words(error.orig, self._url)}): stop the hub, "
                    f"{schema.way_to_mend(is_sqlite=self.is_sqlite)}",
                ) from error
            raise CatalogUnavailable(in_words(error.orig, self._url)) from error
        except DBAPIError as error:
            raise CatalogUnavailable(in_words(error.orig, self._url)) from error
        except TimeoutError as error:
            raise CatalogUnavailable("all its connections are in use") from error


def _lacks_index(error: BaseException | None) -> bool:
    """Trying again does not make it."""
    if error is None:
        return False
    return error.args[:1] == _NO_INDEX_NUMBER or _NO_INDEX_WORDS in str(error)
