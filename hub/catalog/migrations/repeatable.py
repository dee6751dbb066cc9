"""Steps of a migration on MariaDB and MySQL look first whether they were done.

Such a server commits with every statement that changes a table. A migration
that was interrupted is run again from its beginning, and finds what the first
run has made. SQLite needs none of this: it runs a migration in one transaction.
"""

from typing import Any

from alembic.ddl.mysql import MariaDBImpl, MySQLImpl
from sqlalchemy import CheckConstraint, Column, Constraint, Index, Table, inspect


class _Repeatable(MySQLImpl):
    # Not a dialect's own: the two below are.
    __dialect__ = "mysql-repeatable"

    def create_table(self, table: Table, **more: Any) -> None:
        if not self._has_table(table.name):
            super().create_table(table, **more)

    def drop_table(self, table: Table, **more: Any) -> None:
        if self._has_table(table.name):
            super().drop_table(table, **more)

    def add_column(self, table_name: str, column: Column[Any], **more: Any) -> None:
        if column.name not in self._columns(table_name):
            super().add_column(table_name, column, **more)

    def drop_column(self, table_name: str, column: Column[Any], **more: Any) -> None:
        if column.name in self._columns(table_name):
            super().drop_column(table_name, column, **more)

    def add_constraint(self, const: Constraint, **more: Any) -> None:
        if not self._has_check(const):
            super().add_constraint(const, **more)

    def drop_constraint(self, const: Constraint, **more: Any) -> None:
        if not isinstance(const, CheckConstraint) or self._has_check(const):
            super().drop_constraint(const, **more)

    def create_index(self, index: Index, **more: Any) -> None:
        if not self._has_index(index):
            super().create_index(index, **more)

    def drop_index(self, index: Index, **more: Any) -> None:
        if self._has_index(index):
            super().drop_index(index, **more)

    def _has_table(self, name: str) -> bool:
        return inspect(self.connection).has_table(name)

    def _columns(self, table: str) -> set[str]:
        return {column["name"] for column in inspect(self.connection).get_columns(table)}

    def _has_check(self, const: Constraint) -> bool:
        """False for a constraint of another kind: no migration adds or drops one by itself."""
        found = inspect(self.connection).get_check_constraints(const.table.name)
        return const.name in {each["name"] for each in found}

    def _has_index(self, index: Index) -> bool:
        assert index.table is not None
        if not self._has_table(index.table.name):
            return False
        found = inspect(self.connection).get_indexes(index.table.name)
        return index.name in {each["name"] for each in found}


class RepeatableMySQL(_Repeatable):
    """Alembic takes it for `mysql+...`."""

    __dialect__ = "mysql"


class RepeatableMariaDB(_Repeatable, MariaDBImpl):
    """Alembic takes it for `mariadb+...`."""

    __dialect__ = "mariadb"
