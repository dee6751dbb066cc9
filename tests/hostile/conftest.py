"""A whole installation for each test of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.world import World, running_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A VM "pgtest1" without disks, a hub and an agent with time-outs as short as tests need."""
    with running_world(tmp_path / "world", timeout_s=3, inventory_interval_s=0.2) as running:
        yield running
