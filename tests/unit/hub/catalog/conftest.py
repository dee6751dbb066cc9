"""A migrated catalog with one repository, and short words for what happens to jobs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hub.catalog.engine import Catalog
from hub.catalog.repositories import add_repository
from tests.unit.hub.catalog.story import Story

NOON = datetime(2025, 10, 8, 12, 5, 59, 123456, tzinfo=UTC)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    catalog.upgrade()
    with catalog.write() as session:
        for name in ("default", "other"):
            add_repository(
                session,
                repository_id=f"repo-{name}",
                name=name,
                path=str(tmp_path / name),
                default=False,
                now=NOON,
            )
    yield catalog
    catalog.close()


@pytest.fixture
def story(catalog: Catalog, clock: Clock) -> Story:
    return Story(catalog, clock)
