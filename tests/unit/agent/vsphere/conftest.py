from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.vsphere.models import JobSnapshot
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.short_pauses import shorten_pauses

OWNER = "agent-1"


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[SimulatedSite]:
    with SimulatedSite(tmp_path / "site") as site:
        yield site


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)


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


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    return simulated.add_vm(
        "pg", disks=[DiskSpec(capacity_bytes=1 << 20)], change_tracking_enabled=True
    )


def take(vsphere: VsphereSite, vm: SimulatedVm, *, quiesce: bool = False) -> JobSnapshot:
    return vsphere.take_snapshot(
        job_id="job-1",
        vm_moref=vm.moid,
        instance_uuid=vm.instance_uuid,
        quiesce=quiesce,
        owner=OWNER,
    )
