"""A hub in this process, its stubs, and agents that the tests script."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.catalog.engine import Catalog
from hub.config import HubSettings
from hub.jobs.parts import Parts
from hub.jobs.receive_disk import upload
from hub.jobs.repositories import create_repository
from tests.unit.hub.fake_agent import FakeAgent, FakeVm
from tests.unit.hub.running_hub import RunningHub, running


@pytest.fixture(autouse=True)
def acknowledged_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that wait until something is durable do not wait for the usual second."""
    monkeypatch.setattr(upload, "SYNC_INTERVAL_S", 0.05)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog's file with the newest schema and no rows, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "catalog.db"
    catalog = Catalog(f"sqlite:///{path}")
    catalog.upgrade()
    catalog.close()
    return path


@pytest.fixture
def settings(tmp_path: Path, migrated_sqlite: Path) -> HubSettings:
    """A hub's settings with a migrated catalog and the repository "default"."""
    settings = HubSettings(
        listen="127.0.0.1:0",
        catalog_url=f"sqlite:///{tmp_path / 'catalog.db'}",
        state_dir=tmp_path,
    )
    shutil.copyfile(migrated_sqlite, tmp_path / "catalog.db")
    catalog = Catalog(settings.catalog_url)
    create_repository(
        Parts(catalog), name="default", path=str(tmp_path / "repository"), default=True
    )
    catalog.close()
    return settings


@pytest.fixture
def hub(settings: HubSettings) -> Iterator[RunningHub]:
    with running(settings) as hub:
        yield hub


@pytest.fixture
def agents(hub: RunningHub) -> Iterator[Callable[..., FakeAgent]]:
    """`agents("site", FakeVm(...), ...)` is a connected agent; one VM "pgtest1" if none is named.

    What is given by name are fields of AgentRegister.
    """
    made: list[FakeAgent] = []

    def connect(site: str = "lab", *vms: FakeVm, **more: Any) -> FakeAgent:
        agent = FakeAgent(hub.address, site, vms or [FakeVm()], **more)
        made.append(agent)
        return agent.connect()

    yield connect
    for agent in made:
        agent.close()


@pytest.fixture
def agent(agents: Callable[..., FakeAgent]) -> FakeAgent:
    return agents()
