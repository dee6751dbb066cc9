"""Whether a server is new enough to hold a catalog."""

import re
from typing import Final

from sqlalchemy import Connection, text

from shared.errors import ConfigurationError

# The first ones that check CHECK constraints and are tested or documented here.
OLDEST_MARIADB: Final = (10, 5, 0)
OLDEST_MYSQL: Final = (8, 0, 16)


def require_fit(connection: Connection) -> None:
    """Raises ConfigurationError for a server that would not keep the catalog's rules."""
    version = str(connection.scalar(text("SELECT version()")))
    problem = version_problem(version)
    if problem:
        raise ConfigurationError("catalog_url", problem)


def version_problem(version: str) -> str:
    """Why a server of that version cannot be used, or ""."""
    is_mariadb = "mariadb" in version.lower()
    # Some announce themselves as "5.5.5-10.6.1-MariaDB", for old programs' sake.
    digits = re.match(r"(\d+)\.(\d+)\.(\d+)", version.removeprefix("5.5.5-"))
    if digits is None:
        return f"the server's version {version!r} is not understood"
    found = tuple(int(part) for part in digits.groups())
    oldest = OLDEST_MARIADB if is_mariadb else OLDEST_MYSQL
    if found >= oldest:
        return ""
    product = "MariaDB" if is_mariadb else "MySQL"
    wanted = ".".join(map(str, oldest))
    return (
        f"the server is {product} {version}, which is too old: the catalog needs {wanted} or newer"
    )
