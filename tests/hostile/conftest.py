"""A whole installation for each test of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.world import World, running_world
from tests.short_pauses import shorten_pauses


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A VM "pgtest1" without disks, a hub and an agent with time-outs as short as tests need.

    Tests that wait for a time-out give a shorter one: `parametrize("world", [1.0], indirect=True)`.
    """
    timeout_s = getattr(request, "param", 3.0)
    with running_world(
        tmp_path / "world", timeout_s=timeout_s, inventory_interval_s=0.2
    ) as running:
        yield running
