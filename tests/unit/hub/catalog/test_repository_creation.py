"""A repository whose recording was done while the connection to the catalog was lost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from hub.catalog.engine import Catalog
from hub.catalog.repositories import add_repository, all_repositories
from hub.errors import RepositoryExists
from hub.jobs.manage_repositories import make_repository
from hub.jobs.parts import Parts
from hub.jobs.repository_states import RepositoryState
from hub.repository import Repository
from tests.unit.hub.catalog.conftest import NOON


def made(catalog: Catalog, folder: Path) -> RepositoryState:
    return make_repository(Parts(catalog), name="new", path=str(folder), default=True)


def test_repository_that_was_recorded_is_the_answer(catalog: Catalog, tmp_path: Path) -> None:
    with answer_lost(catalog) as lost:
        state = made(catalog, tmp_path / "new")
    assert lost
    assert state.row.id == Repository.id_in(tmp_path / "new")
    assert (state.row.name, state.row.is_default, state.problem) == ("new", True, "")
    with catalog.read() as session:
        named = [(row.name, row.is_default) for row in all_repositories(session)]
    assert named == [("default", False), ("new", True), ("other", False)]
    # Another request for it finds one that is there.
    with pytest.raises(RepositoryExists):
        made(catalog, tmp_path / "new")


def test_repository_that_somebody_else_recorded_meanwhile_is_not(
    catalog: Catalog, tmp_path: Path
) -> None:
    second = Catalog(catalog.url.render_as_string(hide_password=False))

    def other() -> None:
        with second.write() as session:
            add_repository(
                session, repository_id="r", name="new", path="/srv/new", default=False, now=NOON
            )

    with (
        answer_lost(catalog, committed=False, then=other) as lost,
        pytest.raises(RepositoryExists) as caught,
    ):
        made(catalog, tmp_path / "new")
    second.close()
    assert lost
    assert caught.value.path == "/srv/new"


@contextmanager
def answer_lost(
    catalog: Catalog, *, committed: bool = True, then: Callable[[], object] = lambda: None
) -> Iterator[list[str]]:
    """Of the first commit that records a repository, done or not; `then` is called after it."""
    inserted: list[str] = []
    lost: list[str] = []

    def watch(connection: Connection, cursor: object, statement: str, *more: object) -> None:
        if statement.startswith("INSERT INTO backup_repositories"):
            inserted.append(statement)

    def lose(connection: Connection) -> None:
        if not inserted or lost:
            return
        lost.append("answer")
        driver = connection.connection.dbapi_connection
        assert driver is not None
        (driver.commit if committed else driver.rollback)()
        then()
        raise OperationalError("COMMIT", {}, Exception("the connection was lost"))

    event.listen(catalog.engine, "before_cursor_execute", watch)
    event.listen(catalog.engine, "commit", lose)
    try:
        yield lost
    finally:
        event.remove(catalog.engine, "before_cursor_execute", watch)
        event.remove(catalog.engine, "commit", lose)
