"""The room that is kept free in a repository, so that running backups can be ended in order."""

from pathlib import Path
from typing import Final

from hub.repository.errors import RepositoryFull
from hub.repository.file_calls import file_calls

# What one upload may have under way (docs/formats.md).
RESERVE_BYTES: Final = 64 << 20


def require_reserve(root: Path) -> None:
    """Raise RepositoryFull when less than the reserve is free; OSError."""
    free_bytes = file_calls().free_bytes(root)
    if free_bytes is not None and free_bytes < RESERVE_BYTES:
        raise RepositoryFull(str(root))
