"""Ids that people can read. Nothing in the product takes one apart."""

import re
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from typing import Final

MAX_SLUG_CHARS: Final = 64
# Only on a database with several writers can an id be taken between look and insert.
INSERT_ATTEMPTS: Final = 5


def slug(name: str) -> str:
    """`name` in [a-z0-9._-], 1 to 64 characters, whatever script it was written in."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    safe = re.sub(r"[^a-z0-9._-]+", "-", plain)
    # Leading dots would hide folders, trailing ones confuse other systems.
    return safe[:MAX_SLUG_CHARS].strip("-._") or "vm"


def candidates(prefix: str, name: str, now: datetime) -> Iterator[str]:
    """`<prefix>-<slug>-<unix seconds>`, then the same with -2, -3, ... without end."""
    stem = f"{prefix}-{slug(name)}-{int(now.timestamp())}"
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1
