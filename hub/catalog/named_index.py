"""A table that is read by one named index, whatever the engine's planner thinks of it.

For questions whose index is known. SQLite plans without statistics until somebody
runs ANALYZE, and then takes (status, backup_type) for rarer than 60 contexts; MariaDB's
samples come and go with the table. A list would be quick today and slow tomorrow.
An index that is missing is an error on both engines, not a slow answer.
"""

from typing import Any, Final

from sqlalchemy import Table, TableClause, column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.visitors import InternalTraversal

HINTS: Final = {"sqlite": "INDEXED BY {}", "mysql": "FORCE INDEX ({})"}
HINTS["mariadb"] = HINTS["mysql"]


class TableByIndex(TableClause):
    """The table under its own name; `c` has its columns."""

    inherit_cache = True
    _traverse_internals: Any = [  # noqa: RUF012 - SQLAlchemy's way to make cache keys
        *TableClause._traverse_internals,
        ("index_name", InternalTraversal.dp_string),
    ]

    def __init__(self, table: Table, index_name: str) -> None:
        """Raises KeyError when the table has no such index."""
        names = {str(index.name) for index in table.indexes}
        if index_name not in names:
            raise KeyError(f"{table.name} has no index {index_name}")
        super().__init__(table.name, *(column(one.name, one.type) for one in table.c))
        self.index_name = index_name


@compiles(TableByIndex)
def _render(element: TableByIndex, compiler: Any, **more: Any) -> str:
    """The table, and the hint where it stands in a FROM."""
    text = str(compiler.visit_table(element, **more))
    if not more.get("asfrom"):
        return text
    return f"{text} {HINTS[compiler.dialect.name].format(element.index_name)}"
