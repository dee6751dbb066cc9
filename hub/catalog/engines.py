"""How connections to the catalog's database are made, on SQLite and on a server."""

from typing import Any, Final

from pymysql.constants import CR
from pymysql.err import OperationalError
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event

LOCK_TIMEOUT_S: Final = 30
CONNECT_TIMEOUT_S: Final = 10
STATEMENT_TIMEOUT_S: Final = 60
_POOL: Final[dict[str, Any]] = {
    "pool_size": 8,
    "max_overflow": 56,
    "pool_timeout": LOCK_TIMEOUT_S,
}
# What the rules count on, whatever the server's configuration says: a value that does
# not fit is refused, not cut, and a table is InnoDB or is not made. Both timeouts: the
# first is of rows, the second of tables that somebody changes or dumps.
_SERVER_SESSION = (
    f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}, "
    f"lock_wait_timeout = {LOCK_TIMEOUT_S}, "
    "sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
)


def sqlite_engine(url: URL) -> Engine:
    """WAL, durable, foreign keys on; see `begin` for its transactions."""
    engine = create_engine(
        url, connect_args={"timeout": LOCK_TIMEOUT_S, "check_same_thread": False}, **_POOL
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


def server_engine(url: URL, statement_timeout_s: int = STATEMENT_TIMEOUT_S) -> Engine:
    """A pool of connections for transactions; no statement is waited for longer than that."""
    engine = create_engine(
        _with_charset(url),
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        connect_args=_server_arguments(statement_timeout_s),
        **_POOL,
    )
    event.listen(engine, "do_connect", _connect)
    return engine


def single_connections(url: URL, statement_timeout_s: int) -> Engine:
    """No pool and no transactions: each connection is one of the server, until it is closed."""
    engine = create_engine(
        _with_charset(url),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
        connect_args=_server_arguments(statement_timeout_s),
    )
    event.listen(engine, "do_connect", _connect)
    return engine


def _with_charset(url: URL) -> URL:
    return url.update_query_dict({"charset": "utf8mb4"})


def _server_arguments(statement_timeout_s: int) -> dict[str, Any]:
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": statement_timeout_s,
        "write_timeout": statement_timeout_s,
        "init_command": _SERVER_SESSION,
    }


def _connect(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> Any:
    """The driver's connection; all that keeps it from coming about is one of its own errors."""
    try:
        return dialect.loaded_dbapi.connect(*arguments, **options)
    except (OSError, ValueError) as error:  # a certificate that is none, a host that is no name
        raise OperationalError(CR.CR_SSL_CONNECTION_ERROR, str(error)) from error
    except RuntimeError as error:  # a way to log in that needs a further library
        raise OperationalError(CR.CR_AUTH_PLUGIN_CANNOT_LOAD, str(error)) from error
