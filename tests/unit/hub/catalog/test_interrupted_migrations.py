"""Migrations that are interrupted at a statement: running them again finishes them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event

from hub.catalog.engine import Catalog
from hub.catalog.schema import differences
from hub.errors import CatalogUnavailable
from shared.errors import ConfigurationError
from tests.mariadb_server import MariadbServer
from tests.unit.hub.catalog.engines import on_mariadb, on_sqlite
from tests.unit.hub.catalog.kept_data import OLDEST, lived, rows, shape
from tests.unit.hub.catalog.story import Story

CHANGES = ("CREATE ", "ALTER ", "DROP ")


class Interrupted(Exception):
    """The program ended here."""


@on_mariadb
@pytest.mark.parametrize("way", ["up", "down"])
def test_migration_interrupted_after_each_statement_is_finished_by_running_it_again(
    catalog: Catalog, story: Story, mariadb: MariadbServer, way: str
) -> None:
    lived(story)
    before = rows(catalog)
    if way == "up":
        catalog.downgrade(OLDEST)
    run = catalog.upgrade if way == "up" else lambda: catalog.downgrade(OLDEST)
    interruptions = refused = 0
    while True:
        with killed_after_a_change(catalog, mariadb) as killed:
            try:
                run()
            except CatalogUnavailable:
                assert killed
                interruptions += 1
                try:
                    catalog.require_newest()
                except ConfigurationError:
                    refused += 1
                continue
        break
    assert interruptions >= 10
    assert refused == interruptions
    assert not killed
    catalog.upgrade()
    catalog.require_newest()
    assert rows(catalog) == before
    with catalog.engine.connect() as connection:
        assert differences(connection) == []


@on_mariadb
def test_first_upgrade_interrupted_again_and_again_is_finished_by_running_it_again(
    empty_catalog: Callable[[], Catalog], mariadb: MariadbServer
) -> None:
    catalog = empty_catalog()
    for _ in range(100):
        with killed_after_a_change(catalog, mariadb, number=4) as killed:
            try:
                catalog.upgrade()
            except CatalogUnavailable:
                assert len(killed) == 4
                with pytest.raises(ConfigurationError, match="run sendense-hub"):
                    catalog.require_newest()
                continue
        break
    catalog.require_newest()
    with catalog.engine.connect() as connection:
        assert differences(connection) == []


@on_sqlite
def test_migration_interrupted_at_any_statement_changes_nothing(
    catalog: Catalog, story: Story
) -> None:
    lived(story)
    newest = (rows(catalog), shape(catalog))
    ran = list[str]()
    with raised_at(catalog, 10_000, ran):
        catalog.downgrade(OLDEST)
    oldest = (rows(catalog), shape(catalog))
    for number in range(1, len(ran) + 1, 2):
        with raised_at(catalog, number), pytest.raises(Interrupted):
            catalog.upgrade()
        assert catalog.revision() == OLDEST
        if (rows(catalog), shape(catalog)) != oldest:
            pytest.fail(f"statement {number} stayed")
    catalog.upgrade()
    assert (rows(catalog), shape(catalog)) == newest


@contextmanager
def killed_after_a_change(
    catalog: Catalog, server: MariadbServer, number: int = 1
) -> Iterator[list[str]]:
    """The connection is killed when so many statements have changed a table; all are in the list."""
    killed: list[str] = []

    def watch(connection: Connection, cursor: Any, statement: str, *more: object) -> None:
        if statement.lstrip().startswith(CHANGES):
            killed.append(statement)
            if len(killed) == number:
                server.run("KILL CONNECTION %s", cursor.connection.thread_id())

    event.listen(catalog.engine, "after_cursor_execute", watch)
    try:
        yield killed
    finally:
        event.remove(catalog.engine, "after_cursor_execute", watch)


@contextmanager
def raised_at(catalog: Catalog, number: int, ran: list[str] | None = None) -> Iterator[None]:
    """Interrupted when that many statements have changed something; all of them are in `ran`."""
    seen: list[str] = [] if ran is None else ran

    def watch(connection: Connection, cursor: Any, statement: str, *more: object) -> None:
        if statement.lstrip().startswith((*CHANGES, "UPDATE ")):
            seen.append(statement)
            if len(seen) == number:
                raise Interrupted(statement)

    event.listen(catalog.engine, "after_cursor_execute", watch)
    try:
        yield
    finally:
        event.remove(catalog.engine, "after_cursor_execute", watch)
