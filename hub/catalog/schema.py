"""The schema's revisions: which one is there, which ones this program knows, how to change it.

SQLite changes its schema in one transaction. MariaDB commits every statement
that changes a table, so a migration that broke off is half done: there, each
step looks first whether it was done (migrations/repeatable.py), and the
migration is run again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Connection, inspect, text

from hub.catalog.models import Base
from shared.errors import ConfigurationError

BASE: Final = "base"
_VERSION_TABLE: Final = "alembic_version"
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema."""

    name: str
    what: str


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What a database holds. `revision` is None without a schema of ours."""

    revision: str | None
    tables: frozenset[str]
    is_ours: bool  # it has Alembic's table, or no table at all


def revisions() -> tuple[Revision, ...]:
    """All that this program knows, oldest first."""
    return tuple(Revision(name, what) for name, what in _revisions())


def newest_revision() -> str:
    """The revision that this program's models need."""
    return _revisions()[-1][0]


def schema_state(connection: Connection) -> SchemaState:
    """Look what is there."""
    tables = frozenset(inspect(connection).get_table_names())
    heads = MigrationContext.configure(connection).get_current_heads()
    revision = ", ".join(sorted(heads)) or None
    return SchemaState(revision, tables - {_VERSION_TABLE}, not tables or _VERSION_TABLE in tables)


def problem_of(state: SchemaState) -> str:
    """Why a hub cannot serve on it, and what to run; "" when it can."""
    newest = newest_revision()
    if state.revision == newest:
        return ""
    if not state.is_ours:
        some = ", ".join(sorted(state.tables)[:3])
        return (
            f"the database has tables that no sendense-hub made ({some}); give the catalog a "
            "database of its own (sendense-hub import-legacy reads an earlier system's)"
        )
    if state.revision is None:
        if state.tables:
            return "its schema was begun and not finished: run sendense-hub db upgrade again"
        return "it has no schema yet: run sendense-hub init or sendense-hub db upgrade"
    if state.revision not in (known.name for known in revisions()):
        return (
            f"its schema is at revision {state.revision}, and this program knows none newer "
            f"than {newest}: a newer sendense-hub made it; install that one, or have it run "
            f"sendense-hub db downgrade {newest}"
        )
    return (
        f"its schema is at revision {state.revision}, this program needs {newest}: "
        "run sendense-hub db upgrade"
    )


def way_to_mend(*, is_sqlite: bool) -> str:
    """What to do about a schema that is less than its revision says."""
    if is_sqlite:
        # Its migrations do not break off half way.
        return "it was changed by hand: put back a copy of it; sendense-hub db check tells more"
    return (
        "run an interrupted sendense-hub db downgrade again, then db upgrade; "
        "sendense-hub db check tells more"
    )


def require_usable(connection: Connection) -> None:
    """Raises ConfigurationError unless the schema is the newest one, with all its columns
    and indexes."""
    problem = problem_of(schema_state(connection)) or _missing(connection)
    if problem:
        raise ConfigurationError("catalog", problem)


def migrate_up(connection: Connection, report: Report) -> None:
    """To the newest revision. Raises ConfigurationError when it is none of ours."""
    state = schema_state(connection)
    if not state.is_ours or (
        state.revision is not None and state.revision not in (known.name for known in revisions())
    ):
        raise ConfigurationError("catalog", problem_of(state))
    command.upgrade(alembic_config(connection, report), "head")
    missing = _missing(connection)
    if missing:
        raise ConfigurationError("catalog", missing)


def migrate_down(connection: Connection, revision: str, report: Report) -> None:
    """To an older revision, or BASE. What it cannot hold is lost (downgrade.py tells before)."""
    command.downgrade(alembic_config(connection, report), revision)


def differences(connection: Connection) -> list[str]:
    """In what the tables are not those of the models; one sentence each."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    found = [_sentence(each) for each in compare_metadata(context, Base.metadata)]
    inspector = inspect(connection)
    for table in Base.metadata.sorted_tables:
        if table.name not in inspector.get_table_names():
            continue  # told already
        there = {each["name"] for each in inspector.get_check_constraints(table.name)}
        for constraint in table.constraints:
            if isinstance(constraint, CheckConstraint) and constraint.name not in there:
                found.append(f"table {table.name} has no check {constraint.name}")
    return found


def _missing(connection: Connection) -> str:
    """Which columns and indexes of the models are not there, in one sentence, or "".

    Lists name the index that they read by: without it they fail. Quick, for every
    start: all of `differences` is for `db check`.
    """
    inspector = inspect(connection)
    columns, indexes = inspector.get_multi_columns(), inspector.get_multi_indexes()
    there = {(key[1], each["name"]) for key, found in columns.items() for each in found}
    there |= {(key[1], str(each["name"])) for key, found in indexes.items() for each in found}
    wanted = {
        (table.name, str(each.name))
        for table in Base.metadata.sorted_tables
        for each in (*table.c, *table.indexes)
    }
    missing = sorted(f"{table}.{name}" for table, name in wanted - there)
    if not missing:
        return ""
    return (
        f"its schema says revision {newest_revision()} but lacks {', '.join(missing[:3])}"
        f"{' and more' if len(missing) > 3 else ''}: "
        f"{way_to_mend(is_sqlite=connection.dialect.name == 'sqlite')}"
    )


@cache
def _revisions() -> tuple[tuple[str, str], ...]:
    scripts = ScriptDirectory.from_config(alembic_config(None, print))
    return tuple(
        (script.revision, script.doc) for script in reversed(list(scripts.walk_revisions()))
    )


def alembic_config(connection: Connection | None, report: Report) -> Config:
    """What Alembic's commands work by; `report` gets a line for each step."""
    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
    )
    config.attributes["connection"] = connection
    config.attributes["report"] = report
    return config


def _sentence(difference: Any) -> str:
    """Of one of Alembic's differences: a tuple, or a list of them for one column."""
    if isinstance(difference, list):
        return "; ".join(_sentence(each) for each in difference)
    kind, *rest = difference
    names = [name for each in rest if (name := _name(each))]
    if kind.startswith("modify_"):
        table, column, *values = (each for each in rest[1:] if not isinstance(each, dict))
        return f"column {table}.{column}: {kind} from {values[0]} to {values[1]}"
    verb, _, thing = kind.partition("_")
    state = "is not there" if verb == "add" else "is there and should not be"
    return f"{thing} {' '.join(names)} {state}"


def _name(part: Any) -> str:
    if isinstance(part, str):
        return part
    table = getattr(getattr(part, "table", None), "name", "")
    name = getattr(part, "name", "") or ""
    return f"{table}.{name}" if table and name else str(name or table)


def require_references(connection: Connection) -> None:
    """Raises ConfigurationError when SQLite finds a row whose parent is missing."""
    broken = connection.execute(text("PRAGMA foreign_key_check")).first()
    if broken is not None:
        raise ConfigurationError(
            "catalog", f"a row of {broken[0]} refers to none of {broken[2]}; nothing was changed"
        )
