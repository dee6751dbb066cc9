"""Whether a catalog is what its rules make: schema, the database's own checks, rows.

Each rule is one question for rows that break it. All are asked in one read
transaction, so a hub that serves meanwhile does not disturb them.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select, text
from sqlalchemy.orm import Session

from hub.catalog import schema
from hub.catalog.check_rules import RULES, Question
from hub.catalog.engine import Catalog
from hub.catalog.models import BackupDisk, BackupJob, Base, VmBackupContext

# Of one rule; the next finding says that there are more.
MOST_FINDINGS: Final = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    area: str  # schema, database, jobs, chains, counters, files
    subject: str  # an id, or a table
    problem: str


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """What the rules were asked of."""

    contexts: int
    jobs: int
    disks: int


def check_schema(catalog: Catalog) -> list[Finding]:
    """The tables against the models. Raises CatalogUnavailable."""
    problem = schema.problem_of(catalog.schema_state())
    if problem:
        return [Finding("schema", str(catalog), problem)]
    with catalog.translated(), catalog.engine.connect() as connection:
        found = schema.differences(connection)
    return [Finding("schema", str(catalog), each) for each in found]


def check_database(catalog: Catalog) -> list[Finding]:
    """What the database finds wrong with its own files and keys. Raises CatalogUnavailable."""
    with catalog.translated(), catalog.engine.connect() as connection:
        found = (_sqlite if catalog.is_sqlite else _server)(connection)
        return found + _orphans(connection)


def check_rows(catalog: Catalog) -> tuple[CheckedRows, list[Finding]]:
    """The catalog's rules. Its schema must be whole. Raises CatalogUnavailable."""
    with catalog.read() as session:
        counted = CheckedRows(
            *(
                session.scalar(select(func.count()).select_from(model)) or 0
                for model in (VmBackupContext, BackupJob, BackupDisk)
            )
        )
        return counted, broken_rules(session)


def broken_rules(session: Session) -> list[Finding]:
    """What the session's transaction sees of rows that break a rule."""
    return [finding for area, rule in RULES for finding in _ask(session, area, rule())]


def _ask(session: Session, area: str, question: Question) -> list[Finding]:
    rows = session.execute(question.limit(MOST_FINDINGS + 1)).all()
    found = [Finding(area, str(row[0]), str(row[1])) for row in rows[:MOST_FINDINGS]]
    if len(rows) > MOST_FINDINGS:
        found.append(Finding(area, "...", f"more than {MOST_FINDINGS} like the last one"))
    return found


def _sqlite(connection: Connection) -> list[Finding]:
    said = connection.execute(text(f"PRAGMA integrity_check({MOST_FINDINGS})")).scalars().all()
    return [Finding("database", "file", str(each)) for each in said if each != "ok"]


def _server(connection: Connection) -> list[Finding]:
    found = []
    for table in Base.metadata.sorted_tables:
        for row in connection.execute(text(f"CHECK TABLE {table.name}")).mappings():
            # A row says status OK; others have what is wrong, or worth a note.
            if str(row["Msg_type"]).lower() in ("error", "warning"):
                found.append(Finding("database", table.name, str(row["Msg_text"])))
    return found


def _orphans(connection: Connection) -> list[Finding]:
    """Rows whose parent is not there: possible where keys were switched off, or files damaged."""
    found = []
    for table in Base.metadata.sorted_tables:
        for key in table.foreign_key_constraints:
            (column,), (element,) = key.columns, key.elements
            parent = element.column.table.alias("parent")
            parent_column = parent.c[element.column.name]
            count = connection.scalar(
                select(func.count())
                .select_from(table.outerjoin(parent, column == parent_column))
                .where(column.is_not(None), parent_column.is_(None))
            )
            if count:
                found.append(
                    Finding(
                        "database",
                        f"{table.name}.{column.name}",
                        f"{count} rows refer to none of {element.column.table.name}",
                    )
                )
    return found
