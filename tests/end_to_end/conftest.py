"""One site, one hub, one agent for every test of this folder that asks for them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sendense import Client
from simulator.site import SimulatedSite
from tests.end_to_end.processes import Agent, Hub
from tests.end_to_end.restores import Restorer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.end_to_end)


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SimulatedSite]:
    folder = tmp_path / "site"
    folder.mkdir()
    with SimulatedSite(folder) as site:
        yield site


@pytest.fixture
def hub(tmp_path: Path, cleanup: ExitStack) -> Hub:
    hub = Hub(tmp_path)
    hub.start()
    cleanup.callback(hub.stop)
    return hub


@pytest.fixture
def agent(tmp_path: Path, site: SimulatedSite, hub: Hub, cleanup: ExitStack) -> Agent:
    """The site's agent, not started yet: tests first make the VMs they need."""
    agent = Agent(tmp_path / "agent", site, hub, name="lab")
    cleanup.callback(lambda: agent.program and agent.stop())
    return agent


@pytest.fixture
def client(hub: Hub) -> Iterator[Client]:
    with hub.client() as client:
        yield client


@pytest.fixture
def restorer(tmp_path: Path, client: Client, hub: Hub) -> Restorer:
    return Restorer(tmp_path / "restored", client, hub)
