"""The catalog's database: one engine, read and write transactions, migrations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    TimeoutError,
)
from sqlalchemy.orm import Session

from hub.errors import CatalogUnavailable
from shared.errors import ConfigurationError

LOCK_TIMEOUT_S = 30
# What the rules count on, whatever the server's configuration says: a value that does
# not fit is refused, not cut, and a table is InnoDB or is not made.
_MARIADB_SESSION = (
    f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}, "
    "sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
)
# A CHECK is violated, as MariaDB and MySQL number it; the driver calls it operational.
_CHECK_VIOLATED = ((4025,), (3819,))


class Catalog:
    """Thread-safe. `with catalog.write() as session:` is one transaction, committed at the end."""

    def __init__(self, url: str) -> None:
        """Nothing is opened yet. Raises ConfigurationError for an unusable URL."""
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise ConfigurationError("catalog_url", "is not a database URL") from error
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigurationError("catalog_url", "names no SQLite file")
            self._engine = _sqlite_engine(url)
        elif backend in ("mysql", "mariadb"):
            self._engine = create_engine(
                parsed.update_query_dict({"charset": "utf8mb4"}),
                isolation_level="READ COMMITTED",
                pool_pre_ping=True,
                pool_size=8,
                max_overflow=56,
                pool_timeout=LOCK_TIMEOUT_S,
                connect_args={
                    "connect_timeout": 10,
                    "read_timeout": 60,
                    "write_timeout": 60,
                    "init_command": _MARIADB_SESSION,
                },
            )
        else:
            raise ConfigurationError("catalog_url", f"{backend} is no catalog database")
        # What one read asks in several statements is of one moment: a completion
        # between them must not show a running job with completed disks. SQLite's
        # transactions are like that anyway.
        self._reading = (
            self._engine
            if backend == "sqlite"
            else self._engine.execution_options(isolation_level="REPEATABLE READ")
        )
        self._writing = self._engine.execution_options(sendense_write=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that changes nothing and sees one moment. Raises CatalogUnavailable."""
        with _translated(), Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed when the block ends, rolled back when it raises.

        On SQLite it begins IMMEDIATE, so what it reads stays true until it
        commits. Raises CatalogUnavailable, also when the commit fails.
        """
        with _translated(), Session(self._writing, expire_on_commit=False) as session:
            yield session
            session.commit()

    def upgrade(self) -> None:
        """Bring the schema to the newest revision; creates it in an empty database."""
        with _translated(), self._writing.begin() as connection:
            command.upgrade(_alembic(connection), "head")

    def revision(self) -> str | None:
        """The schema's revision; None for an empty database."""
        with _translated(), self._engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def require_newest(self) -> None:
        """Raises ConfigurationError when the schema is not at the newest revision."""
        current, newest = self.revision(), newest_revision()
        if current != newest:
            raise ConfigurationError(
                "catalog",
                f"its schema is at revision {current or 'none'}, this program needs {newest}: "
                "run sendense-hub db upgrade",
            )

    @property
    def engine(self) -> Engine:
        """For the tests of the schema."""
        return self._engine

    def close(self) -> None:
        """Close the idle connections. May be called twice."""
        self._engine.dispose()


def sqlite_url(path: Path) -> str:
    """The URL of a catalog in that file, whatever its name has in it.

    Raises ConfigurationError when no URL can say it.
    """
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    if make_url(url).database != str(path):
        raise ConfigurationError("catalog_url", f"no database URL can name {path}")
    return url


def newest_revision() -> str | None:
    """The revision this program's models need."""
    return ScriptDirectory.from_config(_alembic(None)).get_current_head()


def _alembic(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
    )
    config.attributes["connection"] = connection
    return config


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_TIMEOUT_S, "check_same_thread": False},
        pool_size=8,
        max_overflow=56,
        pool_timeout=LOCK_TIMEOUT_S,
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, record: Any) -> None:
        # The driver's own BEGIN is switched off: it would begin DEFERRED, and a
        # transaction that reads before it writes could then fail as "locked".
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("sendense_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")

    return engine


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (IntegrityError, DataError, ProgrammingError, NotSupportedError):
        raise  # a defect of ours, which trying again does not mend
    except OperationalError as error:
        if error.orig is not None and error.orig.args[:1] in _CHECK_VIOLATED:
            raise IntegrityError(error.statement, error.params, error.orig) from error
        raise CatalogUnavailable(str(error.orig)) from error
    except DBAPIError as error:
        raise CatalogUnavailable(str(error.orig)) from error
    except TimeoutError as error:
        raise CatalogUnavailable("all its connections are in use") from error
