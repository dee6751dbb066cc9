"""Times as people type them: a date, a date and time, or how long ago."""

import re
from datetime import UTC, datetime, timedelta

import typer

_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(typed: str) -> datetime:
    """ "2025-10-08", "2025-10-08T18:05", "2025-10-08T18:05+02:00", "7d", "12h".

    UTC, as all times that the command prints, unless a zone is given. Raises
    typer.BadParameter.
    """
    try:
        ago = _AGO.fullmatch(typed.strip())
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        value = datetime.fromisoformat(typed.strip())
        zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
        return zoned.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{typed!r} is neither a date, such as 2025-10-08 or 2025-10-08T18:05, "
            "nor how long ago, such as 7d, 12h or 30m"
        ) from None
