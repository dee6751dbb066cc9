"""Changing rows only where they are in the expected state."""

from typing import Any, cast

from sqlalchemy import CursorResult, Update
from sqlalchemy.orm import Session


def rows_moved(session: Session, statement: Update) -> int:
    """Run an UPDATE and return how many rows its WHERE matched."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", result).rowcount
