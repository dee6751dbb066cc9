"""Values of another system's rows: what they mean, whatever type they came as."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

_SHOWN_CHARS: Final = 60
# What a BIGINT can hold.
NUMBER_LIMIT: Final = (1 << 63) - 1


class BadValue(ValueError):
    """A value that is not of the kind its column is for; the text names both."""


def text(row: Mapping[str, Any], column: str) -> str:
    """A text, "" for NULL and for a missing column. Raises BadValue."""
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise _bad(column, value, "text") from error
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _bad(column, value, "text")


def number(row: Mapping[str, Any], column: str) -> int | None:
    """A whole number from 0, None for NULL and for a missing column. Raises BadValue."""
    value = row.get(column)
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value) if len(value) < 20 else -1
    if isinstance(value, (Decimal, float)) and value == value // 1:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= NUMBER_LIMIT:
        raise _bad(column, row[column], "whole number")
    return value


def moment(row: Mapping[str, Any], column: str) -> datetime | None:
    """A time, UTC where it names no zone; None for NULL and for a missing column. Raises BadValue."""
    value = row.get(column)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise _bad(column, value, "time") from error
    if not isinstance(value, datetime):
        raise _bad(column, value, "time")
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError as error:
        raise _bad(column, value, "time") from error


def _bad(column: str, value: object, kind: str) -> BadValue:
    return BadValue(f"its {column} {str(value)[:_SHOWN_CHARS]!r} is no {kind}")
