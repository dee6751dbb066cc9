"""NFC tickets: one-time tokens from the vSphere API that open one NFC connection each."""

import secrets
import threading
from dataclasses import dataclass

from simulator.machines import SimulatedVm

SERVICE_VERSION = "1.1"
LIBRARY_VERSION = 11


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the bearer may open: disks of a VM, or just one; for reading or for writing."""

    token: str
    vm: SimulatedVm
    disk_key: int | None
    writable: bool


class Tickets:
    """Tickets not yet used. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, Ticket] = {}

    def issue(
        self, vm: SimulatedVm, disk_key: int | None = None, *, writable: bool = False
    ) -> Ticket:
        """A new ticket."""
        groups = [secrets.token_hex(size) for size in (4, 2, 2, 2, 6)]
        ticket = Ticket(f"52{'-'.join(groups)[2:]}", vm, disk_key, writable)
        with self._lock:
            self._open[ticket.token] = ticket
        return ticket

    def find(self, token: str) -> Ticket | None:
        """The ticket of a token that is still good; it stays so."""
        with self._lock:
            return self._open.get(token)

    def redeem(self, token: str) -> Ticket | None:
        """The ticket of a token, once; None for an unknown or used one."""
        with self._lock:
            return self._open.pop(token, None)
