"""A repository to write to."""

from pathlib import Path

import pytest

from hub.repository import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "repository", repository_id="repo-1", name="default")
