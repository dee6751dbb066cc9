"""The tables of an earlier system, read without changing a byte: rows of raw values."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    column,
    create_engine,
    event,
    inspect,
    make_url,
    select,
    table,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from hub.legacy.errors import OldCatalogUnavailable
from hub.legacy.tables import COLUMNS, CONTEXTS, JOBS, REPOSITORIES, OldTables, Row
from shared.errors import ConfigurationError

TIMEOUT_S: Final = 60
SOURCE: Final = "--from"
# Times come as UTC, and nothing can be changed by mistake.
_SESSION: Final = ("SET SESSION time_zone = '+00:00'", "SET SESSION TRANSACTION READ ONLY")
_OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {REPOSITORIES: ("repositories",)}
# Only our own catalog has both.
_OURS: Final = frozenset({"run_number", "active_context_id"})


def read_old_catalog(url: str) -> OldTables:
    """Everything that could matter, as of one moment.

    Raises ConfigurationError (the URL, or what it leads to, is no such catalog)
    and OldCatalogUnavailable.
    """
    parsed = _parsed(url)
    shown = parsed.render_as_string(hide_password=True)
    try:
        engine = _engine(parsed)
        try:
            with engine.connect() as connection:
                return _read(connection, shown)
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        problem = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise OldCatalogUnavailable(shown, problem) from error


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(SOURCE, "is not a database URL") from error
    backend = parsed.get_backend_name()
    if backend in ("mysql", "mariadb"):
        # Without a driver's name another one would be looked for.
        return parsed.set(drivername=f"{backend}+pymysql")
    if backend != "sqlite":
        raise ConfigurationError(
            SOURCE, f"{backend} is no catalog database; give mysql+pymysql://…"
        )
    if not parsed.database or not Path(parsed.database).is_file():
        raise ConfigurationError(SOURCE, f"there is no file {parsed.database}")
    return parsed


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        path = quote(str(Path(url.database or "").absolute()))
        read_only = f"file:{path}"
        return create_engine(
            URL.create("sqlite", database=read_only, query={"mode": "ro", "uri": "true"}),
            connect_args={"timeout": TIMEOUT_S},
        )
    engine = create_engine(
        url.update_query_dict({"charset": "utf8mb4"}),
        isolation_level="REPEATABLE READ",
        connect_args={
            "connect_timeout": 10,
            "read_timeout": TIMEOUT_S,
            "write_timeout": TIMEOUT_S,
        },
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, record: Any) -> None:
        with connection.cursor() as cursor:
            for statement in _SESSION:
                cursor.execute(statement)

    return engine


def _read(connection: Connection, shown: str) -> OldTables:
    looked_at = inspect(connection)
    there = set(looked_at.get_table_names())
    if JOBS not in there:
        raise ConfigurationError(SOURCE, f"{shown} has no table {JOBS}")
    rows: dict[str, Sequence[Row]] = {}
    columns: dict[str, frozenset[str]] = {}
    for name, wanted in COLUMNS.items():
        found = next((n for n in (name, *_OTHER_NAMES.get(name, ())) if n in there), None)
        has = {each["name"] for each in looked_at.get_columns(found)} if found else set()
        if name == JOBS and has >= _OURS:
            raise ConfigurationError(
                SOURCE, f"{shown} is a catalog of this system: there is nothing to import from it"
            )
        columns[name] = frozenset(has & wanted)
        rows[name] = _rows(connection, found, sorted(columns[name])) if found else ()
    if "id" not in columns[JOBS]:
        raise ConfigurationError(SOURCE, f"the table {JOBS} of {shown} has no column id")
    return OldTables(rows, columns)


def _rows(connection: Connection, name: str, columns: Sequence[str]) -> Sequence[Row]:
    if not columns:
        return ()
    # Without types: a value is what the database has, not what a type makes of it.
    wanted: list[ColumnElement[Any]] = [column(each) for each in columns]
    with closing(connection.execute(select(*wanted).select_from(table(name)))) as result:
        found = [dict(row) for row in result.mappings()]
    key = "context_id" if name == CONTEXTS else "id"
    return sorted(found, key=lambda row: (str(row.get(key)), repr(sorted(row.items(), key=str))))
