"""Sites and disks of the tests of reading."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.agent.transports.read_disks import CAPACITY, EAGER, content


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    return simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=CAPACITY, content=content(1))])


@pytest.fixture(params=["nbdssl", "nbd"])
def vsphere(request: pytest.FixtureRequest, settings: VsphereSettings) -> Iterator[VsphereSite]:
    with VsphereSite.connect(replace(settings, transport=request.param, reconnect=EAGER)) as site:
        yield site


@pytest.fixture
def plain(settings: VsphereSettings) -> VsphereSettings:
    """Settings of a site where every byte of the disk travels."""
    return replace(settings, transport="nbd", reconnect=EAGER)
