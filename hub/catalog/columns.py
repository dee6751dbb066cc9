"""Column types that mean the same on SQLite and MariaDB."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    Integer,
    LargeBinary,
    TypeDecorator,
)
from sqlalchemy.dialects.mysql import DATETIME, MEDIUMBLOB
from sqlalchemy.types import TypeEngine

# SQLite numbers rows by itself only where the key is an INTEGER.
RowNumber = BigInteger().with_variant(Integer(), "sqlite")


# Up to 16 MiB.
Blob = LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime with microseconds. Refuses naive ones."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


def checked(kind: type[StrEnum], name: str) -> Enum:
    """A string column that a CHECK constraint holds to the values of `kind`."""
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )
