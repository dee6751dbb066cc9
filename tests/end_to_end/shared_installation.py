"""One site, hub and agent for all tests of a module, each of which makes VMs of its own.

Test modules import these fixtures in place of the folder's; a test must leave all three running.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sendense import Client
from simulator.site import SimulatedSite
from tests.end_to_end.processes import Agent, Hub

__all__ = ["agent", "client", "hub", "site"]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the module's installation."""
    return tmp_path_factory.mktemp("installation")


@pytest.fixture(scope="module")
def site(installation: Path) -> Iterator[SimulatedSite]:
    folder = installation / "site"
    folder.mkdir()
    with SimulatedSite(folder) as site:
        site.add_vm("bystander", disks=[])
        yield site


@pytest.fixture(scope="module")
def hub(installation: Path) -> Iterator[Hub]:
    hub = Hub(installation)
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def agent(installation: Path, site: SimulatedSite, hub: Hub) -> Iterator[Agent]:
    """The site's agent, started: tests wait for it to report the VMs that they made."""
    often = "inventory_interval_s = 0.1"
    agent = Agent(installation / "agent", site, hub, name="lab", more=often)
    agent.start()
    yield agent
    agent.stop()


@pytest.fixture(scope="module")
def client(hub: Hub) -> Iterator[Client]:
    with hub.client() as client:
        yield client
