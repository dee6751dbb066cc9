"""A copy of an SQLite catalog, taken before its schema is changed."""

import os
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from hub.catalog.engine import Catalog
from hub.errors import CatalogUnavailable


def copy_before(catalog: Catalog, revision: str, now: datetime) -> Path:
    """Write all that is committed into `<file>.before-<revision>-<time>`; nothing is replaced.

    The copy is whole and synced, or it is not there. Raises CatalogUnavailable.
    """
    target = catalog.file.with_name(
        f"{catalog.file.name}.before-{revision}-{now:%Y%m%dT%H%M%S.%fZ}"
    )
    partial = target.with_name(target.name + ".partial")
    try:
        with catalog.translated(), catalog.engine.connect() as connection:
            driver = connection.connection.dbapi_connection
            assert driver is not None
            # Outside of a transaction, so not through SQLAlchemy, which begins one.
            driver.cursor().execute("VACUUM INTO ?", (str(partial),))
        shutil.copymode(catalog.file, partial)
        _sync(partial)
        partial.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise CatalogUnavailable(f"no copy was made: {partial}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return target


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
