"""A running site, and clients of it: pyVmomi and a plain NFC client."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVim.connect import Disconnect, SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import vim

from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.simulator.nfc_client import NfcClient

MIB = 1 << 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SimulatedSite]:
    with SimulatedSite(tmp_path / "site") as running:
        yield running


@pytest.fixture
def vm(site: SimulatedSite) -> SimulatedVm:
    """Two disks, the second behind a second controller."""
    return site.add_vm("db 1", [DiskSpec(16 * MIB), DiskSpec(8 * MIB, controller=1)])


def connect(site: SimulatedSite, **changes: Any) -> Any:
    host, port = site.address.split(":")
    options = {
        "host": host,
        "port": int(port),
        "user": site.user,
        "pwd": site.password,
        "sslContext": ssl.create_default_context(cadata=site.certificate_pem),
        "httpConnectionTimeout": 30,
    }
    return SmartConnect(**{**options, **changes})


@pytest.fixture
def api(site: SimulatedSite) -> Iterator[Any]:
    """pyVmomi's service instance, logged in."""
    instance = connect(site)
    yield instance
    Disconnect(instance)


@pytest.fixture
def seen_vm(api: Any, vm: SimulatedVm) -> Any:
    """The VM as pyVmomi sees it."""
    return vim.VirtualMachine(vm.moid, api._stub)


def take_snapshot(seen: Any, name: str, *, quiesce: bool = False) -> Any:
    task = seen.CreateSnapshot_Task(name, "a test", False, quiesce)
    WaitForTask(task)
    return task.info.result


def frozen_disks(snapshot: Any) -> list[Any]:
    devices = snapshot.config.hardware.device
    return [one for one in devices if isinstance(one, vim.vm.device.VirtualDisk)]


@pytest.fixture
def nfc(site: SimulatedSite) -> Iterator[Callable[..., NfcClient]]:
    """Opens NFC connections, greeted, with a session open."""
    clients: list[NfcClient] = []

    def connected(
        vm: SimulatedVm,
        *,
        service: str = "nfc",
        buffer_bytes: int = 65536,
        writable: bool = False,
        disk_key: int | None = None,
    ) -> NfcClient:
        ticket = site.tickets.issue(vm, disk_key, writable=writable)
        client = NfcClient(
            ("127.0.0.2", site.nfc_port), ticket.token, service, site.certificate_pem
        )
        clients.append(client)
        client.greet()
        client.open_session(buffer_bytes)
        return client

    yield connected
    for client in clients:
        client.close()
