"""Tests that say something of one engine alone."""

from typing import Final

import pytest

MARIADB: Final = pytest.param("mariadb", marks=pytest.mark.mariadb)
on_mariadb: Final = pytest.mark.parametrize("engine_name", [MARIADB], indirect=True)
on_sqlite: Final = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
