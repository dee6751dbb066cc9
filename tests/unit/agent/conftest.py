from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.vsphere.settings import VsphereSettings
from simulator.site import SimulatedSite
from tests.unit.agent.recording_hub import RecordingHub


@pytest.fixture
def hub() -> Iterator[RecordingHub]:
    with RecordingHub() as hub:
        yield hub


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[SimulatedSite]:
    with SimulatedSite(tmp_path / "site") as site:
        yield site


@pytest.fixture
def settings(simulated: SimulatedSite) -> VsphereSettings:
    return VsphereSettings(
        address=simulated.address,
        user=simulated.user,
        password=simulated.password,
        certificate_sha256=simulated.certificate_sha256,
        ca_file=None,
        transport="nbdssl",
        site="paris",
        timeout_s=20,
    )
