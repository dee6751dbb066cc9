"""A VM that is tracked, and what a client does that gives each fault its chance."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim

from simulator.disks.link import GRAIN
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.simulator.conftest import MIB, frozen_disks, take_snapshot
from tests.unit.simulator.nfc_client import NfcClient

CAPACITY = 16 * MIB
BASE = "[datastore1] db 1/db 1.vmdk"
CHANGED = [(2 * GRAIN, 3 * GRAIN), (100 * GRAIN, GRAIN)]


@dataclass
class Client:
    """One client of one VM through the API and NFC, and the deeds that give faults a chance."""

    site: SimulatedSite
    vm: SimulatedVm
    seen: Any  # the VM as pyVmomi sees it
    connect: Callable[..., NfcClient]
    snapshot: Any = None
    since: str = ""

    def prepare(self) -> None:
        """Tracking on, a first snapshot's change id, known changes, a second snapshot."""
        self.vm.reconfigure(change_tracking_enabled=True)
        self.vm.disks[0].write(0, b"base" * (4 * GRAIN))
        first = take_snapshot(self.seen, "first")
        self.since = frozen_disks(first)[0].backing.changeId
        for start, length in CHANGED:
            self.vm.disks[0].write(start, b"n" * length)
        self.snapshot = take_snapshot(self.seen, "second")

    def query(self, offset: int = 0, since: str | None = None) -> Any:
        """One answer of QueryChangedDiskAreas for the first disk."""
        return self.seen.QueryChangedDiskAreas(self.snapshot, 2000, offset, since or self.since)

    def areas(self, offset: int = 0, since: str | None = None) -> list[tuple[int, int]]:
        """The areas of one answer."""
        return [(one.start, one.length) for one in self.query(offset, since).changedArea]

    def task(self, quiesce: bool = False) -> Any:
        """A snapshot is taken and removed again; it."""
        made = take_snapshot(self.seen, "by task", quiesce=quiesce)
        WaitForTask(made.RemoveSnapshot_Task(False, True))
        return made

    def opened(self, path: str = BASE, **options: Any) -> tuple[NfcClient, int]:
        """An NFC connection with a disk file open, and its handle."""
        client = self.connect(self.vm, **options)
        return client, struct.unpack_from("<Q", client.open_file(path), 8)[0]

    def read(self) -> bytes:
        """The first MiB of the first disk, on a connection of its own."""
        client, handle = self.opened()
        try:
            return client.read(handle, 0, MIB)
        finally:
            client.close()

    def allocated(self) -> list[bool]:
        """Per grain of the first disk: what the allocation query says."""
        client, handle = self.opened()
        chunks = CAPACITY // GRAIN
        client.call(13, struct.pack("<QQQQQQ", handle, 0, GRAIN, 0, chunks, 0))
        bitmap = client.receive(chunks // 8)
        client.close()
        return [bool(bitmap[bit // 8] >> bit % 8 & 1) for bit in range(chunks)]


@pytest.fixture
def client(
    site: SimulatedSite, vm: SimulatedVm, seen_vm: Any, nfc: Callable[..., NfcClient]
) -> Iterator[Client]:
    made = Client(site, vm, seen_vm, nfc)
    made.prepare()
    yield made
    site.faults.clear()


def fails(kind: Any, call: Callable[[], Any]) -> None:
    with pytest.raises(kind):
        call()


def consolidation_needed(client: Client) -> bool:
    return bool(vim.VirtualMachine(client.vm.moid, client.seen._stub).runtime.consolidationNeeded)
