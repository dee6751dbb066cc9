from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.site import SimulatedSite


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


@pytest.fixture
def vsphere(settings: VsphereSettings) -> Iterator[VsphereSite]:
    with VsphereSite.connect(settings) as site:
        yield site
