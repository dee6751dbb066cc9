"""What goes wrong with a catalog's connections, done at one statement of one transaction."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, ExceptionContext, event

from hub.catalog.engine import Catalog

DEADLOCK, LOCK_TIMEOUT = 1213, 1205
LOST = {1927, 2006, 2013}  # killed, gone, lost while it asked


@contextmanager
def once(catalog: Catalog, words: str, act: Callable[[Any], object]) -> Iterator[None]:
    """`act(driver's connection)` right before the next statement with these words; it has to come."""
    fired: list[str] = []

    def watch(connection: Connection, cursor: Any, statement: str, *more: object) -> None:
        if words in statement and not fired:
            fired.append(statement)
            act(cursor.connection)

    event.listen(catalog.engine, "before_cursor_execute", watch)
    try:
        yield
    finally:
        event.remove(catalog.engine, "before_cursor_execute", watch)
    assert fired


@contextmanager
def once_at_commit(catalog: Catalog, act: Callable[[Any], object]) -> Iterator[None]:
    """`act(driver's connection)` right before the next COMMIT; it has to come."""
    fired: list[Connection] = []

    def watch(connection: Connection) -> None:
        if not fired:
            fired.append(connection)
            act(connection.connection.dbapi_connection)

    event.listen(catalog.engine, "commit", watch)
    try:
        yield
    finally:
        event.remove(catalog.engine, "commit", watch)
    assert fired


@contextmanager
def errors_of(catalog: Catalog, then: Callable[[], object] = lambda: None) -> Iterator[list[int]]:
    """The numbers of the database's errors within the block; `then` is called at each."""
    numbers: list[int] = []

    def note(context: ExceptionContext) -> None:
        numbers.append(context.original_exception.args[0])
        then()

    event.listen(catalog.engine, "handle_error", note)
    try:
        yield numbers
    finally:
        event.remove(catalog.engine, "handle_error", note)


@contextmanager
def impatient(catalog: Catalog) -> Iterator[None]:
    """Transactions that begin within the block wait one second for a lock of MariaDB."""

    def shorten(connection: Connection) -> None:
        if connection.dialect.name != "sqlite":
            connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 1")

    event.listen(catalog.engine, "begin", shorten)
    try:
        yield
    finally:
        event.remove(catalog.engine, "begin", shorten)
