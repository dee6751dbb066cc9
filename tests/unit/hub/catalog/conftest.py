"""A migrated catalog with one repository, and short words for what happens to jobs.

Every test that uses a catalog runs on SQLite and on MariaDB.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from hub.catalog.engine import Catalog
from hub.catalog.repositories import add_repository
from tests.mariadb_server import MariadbServer
from tests.unit.hub.catalog.engines import MARIADB
from tests.unit.hub.catalog.story import Story

NOON = datetime(2025, 10, 8, 12, 5, 59, 123456, tzinfo=UTC)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", MARIADB])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_catalog(
    engine_name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], Catalog]]:
    """`empty_catalog()` is a catalog in a database of its own, without a schema."""
    with ExitStack() as stack:

        def make() -> Catalog:
            if engine_name == "sqlite":
                number = len(list(tmp_path.glob("catalog-*.db")))
                (tmp_path / f"catalog-{number}.db").touch()
                url = f"sqlite:///{tmp_path / f'catalog-{number}.db'}"
            else:
                server: MariadbServer = request.getfixturevalue("mariadb")
                url = stack.enter_context(server.database())
            catalog = Catalog(url)
            stack.callback(catalog.close)
            return catalog

        yield make


@pytest.fixture(scope="session")
def mariadb_schema(mariadb: MariadbServer) -> list[str]:
    """Statements that make what the migrations make, in a quarter of the time."""
    with mariadb.database() as url:
        catalog = Catalog(url)
        catalog.upgrade()
        with catalog.engine.connect() as connection:
            tables = inspect(connection).get_table_names()
            made = [
                connection.exec_driver_sql(f"SHOW CREATE TABLE {table}").one()[1]
                for table in tables
            ]
            revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        catalog.close()
    # A table may come before the one that its foreign keys lead to.
    first = "SET SESSION foreign_key_checks = 0"
    last = "SET SESSION foreign_key_checks = 1"
    known = f"INSERT INTO alembic_version VALUES ('{revision}')"  # noqa: S608
    return [first, *made, known, last]


@pytest.fixture
def catalog(
    engine_name: str,
    empty_catalog: Callable[[], Catalog],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Catalog:
    catalog = empty_catalog()
    if engine_name == "sqlite":
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), catalog.engine.url.database)
    else:
        with catalog.engine.begin() as connection:
            for statement in request.getfixturevalue("mariadb_schema"):
                connection.exec_driver_sql(statement)
    with catalog.write() as session:
        for name in ("default", "other"):
            add_repository(
                session,
                repository_id=f"repo-{name}",
                name=name,
                path=str(tmp_path / name),
                default=False,
                now=NOON,
            )
    return catalog


@pytest.fixture
def story(catalog: Catalog, clock: Clock) -> Story:
    return Story(catalog, clock)
