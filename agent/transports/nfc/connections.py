"""The connections to one frozen disk, one after another."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from agent.cancellation import Cancellation
from agent.transports.errors import NfcOpenRefused, NfcRunningDisk, NfcWrongSize
from agent.transports.nfc.budget import Lease, NfcBudget
from agent.transports.nfc.reader import NfcDiskReader
from agent.transports.nfc.ticket import NfcTicket, Transport
from agent.transports.nfc.turn_clock import TurnClock

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NfcDisk:
    """A disk file, and how to get at it anew."""

    path: str
    """As vSphere writes it: "[datastore] folder/file.vmdk"."""
    capacity_bytes: int
    host: Callable[[], str]
    """Names the host that gives the disk to read just now. Raises SendenseErrors."""
    ticket: Callable[[], NfcTicket]
    """A new ticket: each is good for one connection. Raises SendenseErrors."""
    is_running: Callable[[], bool]
    """Whether the VM writes to this very file just now. Raises SendenseErrors."""


class NfcConnections:
    """Opens connections inside the host's budget. One thread uses it.

    The place in the budget is kept from one connection to the next, so that a
    disk half read does not queue behind others after a cut. The wait for one is no time
    on `clock`.
    """

    def __init__(
        self, disk: NfcDisk, budget: NfcBudget, transport: Transport, timeout_s: float
    ) -> None:
        self.disk = disk
        self._budget = budget
        self._transport = transport
        self._timeout_s = timeout_s
        self._lease: Lease | None = None
        self._latest: NfcDiskReader | None = None
        self.clock = TurnClock()

    @property
    def opened_before(self) -> bool:
        """The file was opened once: it exists, and may be read."""
        return self._latest is not None

    def connect(self, stop: Cancellation) -> NfcDiskReader:
        """Open the disk on a new connection; the one before is closed by now.

        Raises TransportErrors, NfcWrongSize and NfcRunningDisk among them, what the
        disk's functions raise, and the error of `stop`.
        """
        lease = self.reserve(stop)
        # A ticket does not wait for the budget: it would expire.
        ticket = self.disk.ticket()
        stop.check()
        try:
            reader = NfcDiskReader.open(
                ticket,
                self.disk.path,
                transport=self._transport,
                timeout_s=self._timeout_s,
                compression=self._latest.compression if self._latest else None,
                requests=lease.requests,
                stop=stop,
            )
        except NfcOpenRefused as error:
            if self.disk.is_running():
                raise NfcRunningDisk(error.host, error.path, error.problem) from error
            raise
        if reader.capacity_bytes != self.disk.capacity_bytes:
            reader.close()
            raise NfcWrongSize(
                ticket.host, self.disk.path, self.disk.capacity_bytes, reader.capacity_bytes
            )
        self._latest = reader
        return reader

    def reserve(self, stop: Cancellation) -> Lease:
        """Wait for a place at the host of the disk, unless there is one already."""
        host = self.disk.host()
        if self._lease is not None and self._lease.host == host:
            return self._lease
        if self._lease is not None:
            _log.info("disk_moved_to_another_host", path=self.disk.path, host=host)
            self.close()
        with self.clock.waiting():
            self._lease = self._budget.lease(host, stop, ahead=self.opened_before)
        return self._lease

    def close(self) -> None:
        """Give the place back, after the last connection's end; may be called twice."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
