"""A catalog that has lived, and all that its database holds: what migrations must keep."""

from typing import Any

from sqlalchemy import MetaData, inspect, text

from hub.catalog.engine import Catalog
from hub.catalog.schema import revisions
from hub.jobs.states import Event
from tests.unit.hub.catalog.story import PGTEST, Story, frozen

OLDEST = revisions()[0].name
Rows = dict[str, list[tuple[Any, ...]]]


def rows(catalog: Catalog, columns_of: Rows | None = None) -> Rows:
    """Every row of every table, by name of table; the first one is the columns' names.

    With `columns_of` these columns alone, where they are there.
    """
    metadata = MetaData()
    found: Rows = {}
    with catalog.engine.connect() as connection:
        metadata.reflect(connection)
        for table in metadata.sorted_tables:
            if table.name == "alembic_version":
                continue
            names = sorted(column.name for column in table.c)
            if columns_of is not None:
                names = [name for name in columns_of.get(table.name, [()])[0] if name in names]
            listed = ", ".join(names) or "1"
            content = connection.execute(text(f"SELECT {listed} FROM {table.name}"))  # noqa: S608
            found[table.name] = [tuple(names), *sorted(map(tuple, content), key=repr)]
    return found


def shape(catalog: Catalog) -> dict[str, object]:
    """What the database says of its tables."""
    inspector = inspect(catalog.engine)
    return {
        table: {
            "columns": sorted(
                (each["name"], str(each["type"]), each["nullable"])
                for each in inspector.get_columns(table)
            ),
            "indexes": sorted(
                (each["name"], each["column_names"], bool(each["unique"]))
                for each in inspector.get_indexes(table)
            ),
            "keys": sorted(
                (each["name"], each["constrained_columns"], each["options"].get("ondelete"))
                for each in inspector.get_foreign_keys(table)
            ),
            "checks": sorted(str(each["name"]) for each in inspector.get_check_constraints(table)),
        }
        for table in inspector.get_table_names()
    }


def lived(story: Story) -> None:
    """Two VMs with chains, jobs that failed or still run, everything that 0001 knows."""
    story.whole(frozen(0), frozen(1))
    story.whole(frozen(0), frozen(1))
    story.fail(story.start())
    story.fail(story.start(), Event.CANCELLED)
    other = type(PGTEST)(site="lab", instance_uuid="uuid-2", moref="vm-2", name="数据库")
    story.whole(vm=other, repository="repo-other")
    story.start(other, repository="repo-other")
    # No older schema has a place for it, and the way up does not guess.
    with story.catalog.write() as session:
        session.execute(text("UPDATE backup_disks SET read_method = NULL"))
