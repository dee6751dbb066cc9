"""An earlier system beside a migrated catalog of ours; both engines for both of them."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hub.catalog.engine import Catalog
from hub.catalog.legacy.known import known_catalog
from hub.catalog.legacy.read import read_old_catalog
from hub.catalog.models import Base
from hub.catalog.repositories import is_free_id
from hub.jobs.parts import Parts
from hub.legacy.apply import apply_plan
from hub.legacy.old_catalog import understand
from hub.legacy.plan import make_plan
from hub.legacy.planned import ImportPlan
from hub.legacy.vms import Choices
from tests.mariadb_server import MariadbServer
from tests.unit.hub.catalog.conftest import mariadb_schema
from tests.unit.hub.legacy.old_system import OldSystem

__all__ = ["mariadb_schema"]  # a fixture


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.legacy_import)


@pytest.fixture
def engine_name() -> str:
    """SQLite, unless a test asks for both."""
    return "sqlite"


@pytest.fixture
def database(
    engine_name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[str], str]]:
    """`database("old")` is the URL of an empty database."""
    with ExitStack() as stack:

        def make(name: str) -> str:
            if engine_name == "sqlite":
                (tmp_path / f"{name}.db").touch()
                return f"sqlite:///{tmp_path / f'{name}.db'}"
            server: MariadbServer = request.getfixturevalue("mariadb")
            return stack.enter_context(server.database())

        yield make


@pytest.fixture
def old(tmp_path: Path, database: Callable[[str], str], layer_cache: Path) -> OldSystem:
    """An old system without a row."""
    return OldSystem(tmp_path / "old repository", database("old"), layer_cache)


@pytest.fixture(scope="session")
def layer_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layers")


@pytest.fixture(scope="session")
def sqlite_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated catalog without a row, to be copied."""
    made = tmp_path_factory.mktemp("catalog") / "migrated.db"
    made.touch()
    catalog = Catalog(f"sqlite:///{made}")
    catalog.upgrade()
    catalog.close()
    return made


@pytest.fixture
def our_catalog(
    engine_name: str,
    database: Callable[[str], str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Iterator[Catalog]:
    """A migrated catalog without a row."""
    catalog = Catalog(database("ours"))
    if engine_name == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_catalog"), tmp_path / "ours.db")
    else:
        with catalog.engine.begin() as connection:
            for statement in request.getfixturevalue("mariadb_schema"):
                connection.exec_driver_sql(statement)
    yield catalog
    catalog.close()


@pytest.fixture
def parts(our_catalog: Catalog) -> Parts:
    return Parts(our_catalog)


@pytest.fixture
def importer(old: OldSystem, parts: Parts) -> "Importer":
    return Importer(old, parts)


class Importer:
    """The import as the command does it, without the command."""

    def __init__(self, old: OldSystem, parts: Parts) -> None:
        self.old = old
        self.parts = parts
        self.choices = Choices({}, {}, "lab")

    def plan(self, **choices: Any) -> ImportPlan:
        """What would be made of the rows as they are now."""
        self.old.save()
        return self.plan_of_saved(**choices)

    def plan_of_saved(self, **choices: Any) -> ImportPlan:
        taken = {
            "repositories": self.choices.repositories,
            "instance_uuids": self.choices.instance_uuids,
            "site": self.choices.site,
        } | choices
        with self.parts.catalog.read() as session:
            known = known_catalog(session)
            free = {each.repository_id for each in known.repositories}
            return make_plan(
                understand(read_old_catalog(self.old.url)),
                known,
                Choices(**taken),
                id_is_free=lambda each: each not in free and is_free_id(session, each),
                on_file=lambda done, everything: None,
            )

    def apply(self, **choices: Any) -> ImportPlan:
        """Plan and write; the plan."""
        plan = self.plan(**choices)
        apply_plan(self.parts, plan)
        return plan

    def dump(self) -> Mapping[str, list[tuple[Any, ...]]]:
        """Every row of our catalog."""
        with self.parts.catalog.read() as session:
            return {
                table.name: sorted(
                    (tuple(row) for row in session.execute(table.select())), key=repr
                )
                for table in Base.metadata.sorted_tables
            }


def jobs_of(plan: ImportPlan) -> dict[str, list[int]]:
    """Disk indexes by backup, in the order of the run."""
    return {
        job.key: [disk.disk_index for disk in job.disks]
        for context in plan.contexts
        for job in context.jobs
    }


def left_out(plan: ImportPlan) -> dict[str, str]:
    """Why, by row id."""
    return {ref.row_id: row.reason for row in plan.left_out for ref in row.refs}
