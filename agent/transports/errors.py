"""What can go wrong between the agent and the bytes of a disk."""

from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


class TransportError(SendenseError):
    """Base of everything a DiskReader raises about its host, connection or disk."""

    code: ClassVar[str] = "TRANSPORT_FAILED"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE


@dataclass(eq=False)
class AllocationUnknown(TransportError):
    """The host does not tell which parts of a disk are allocated. The reader still reads."""

    code: ClassVar[str] = "ALLOCATION_UNKNOWN"
    status: ClassVar[StatusCode] = StatusCode.UNIMPLEMENTED
    text: ClassVar[str] = (
        "the host does not tell which parts of {path} are allocated ({problem}); "
        "the whole disk has to be read"
    )

    path: str
    problem: str


@dataclass(eq=False)
class ReaderClosed(TransportError):
    """The reader was closed, here or by another thread, or an earlier error ended it."""

    code: ClassVar[str] = "TRANSPORT_CLOSED"
    status: ClassVar[StatusCode] = StatusCode.ABORTED
    text: ClassVar[str] = "reading {path} was stopped: its reader is closed"

    path: str


@dataclass(eq=False)
class NfcUnreachable(TransportError):
    """No connection to the NFC port of the host."""

    code: ClassVar[str] = "NFC_UNREACHABLE"
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "cannot connect to {host}:{port} to read {path}: {problem}; "
        "the agent must resolve this name and reach this TCP port (usually 902)"
    )

    host: str
    port: int
    path: str
    problem: str


@dataclass(eq=False)
class NfcTimedOut(TransportError):
    """The host did not answer in time; the connection is closed."""

    code: ClassVar[str] = "NFC_TIMED_OUT"
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "{host}:{port} did not answer within {timeout_s:g} s while {doing} ({path}); "
        "see whether the host is overloaded or the network drops packets"
    )

    host: str
    port: int
    path: str
    timeout_s: float
    doing: str


@dataclass(eq=False)
class NfcConnectionLost(TransportError):
    """The host or the network ended the connection."""

    code: ClassVar[str] = "NFC_CONNECTION_LOST"
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "the connection to {host}:{port} broke while {doing} ({path}): {problem}; "
        "the host's log (hostd.log, vpxa.log) tells why"
    )

    host: str
    port: int
    path: str
    doing: str
    problem: str


@dataclass(eq=False)
class NfcCertificateMismatch(TransportError):
    """The host on the NFC port is not the one that vSphere named. Nothing was sent to it."""

    code: ClassVar[str] = "NFC_CERTIFICATE_MISMATCH"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "{host}:{port} shows a certificate with the fingerprint {seen}, expected {expected}; "
        "if the host's certificate was renewed, reconnect it in vCenter or pin the new one, "
        "else find out who answers there"
    )

    host: str
    port: int
    expected: str
    seen: str


@dataclass(eq=False)
class NfcRefused(TransportError):
    """The host refused the session before a disk was opened.

    A ticket that was used, expired or unknown, a host out of connections: a new
    ticket, some time later, may be taken.
    """

    code: ClassVar[str] = "NFC_REFUSED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "{host}:{port} refused to {doing} for {path}: {reply}; try the other transport "
        "(nbdssl, nbd), and see whether the host has NFC connections left"
    )

    host: str
    port: int
    path: str
    doing: str
    reply: str


@dataclass(eq=False)
class NfcOpenRefused(TransportError):
    """The host does not open the disk file."""

    code: ClassVar[str] = "NFC_OPEN_REFUSED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "{host} does not open {path} for reading ({problem}); the file must be the link that "
        "the job's snapshot froze, and no other program may hold it"
    )

    host: str
    path: str
    problem: str


@dataclass(eq=False)
class NfcRunningDisk(NfcOpenRefused):
    """The file is one that the running VM writes to. No wait helps."""

    text: ClassVar[str] = (
        "{host} does not open {path} for reading ({problem}): the VM runs on this very file; only "
        "links that a snapshot froze can be read: start the backup again, which takes a new one"
    )


@dataclass(eq=False)
class NfcTicketRefused(TransportError):
    """vSphere, asked for a ticket, answered with a fault."""

    code: ClassVar[str] = "NFC_TICKET_REFUSED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "no ticket to read {path}: {problem}"

    path: str
    problem: str


@dataclass(eq=False)
class NfcWrongSize(TransportError):
    """The file that the host opened is not the disk that the snapshot froze. Nothing was read."""

    code: ClassVar[str] = "NFC_WRONG_SIZE"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "{host} opens {path} with a capacity of {seen_bytes} bytes, the snapshot says "
        "{expected_bytes}; start the backup again, and see what else works on the VM's disks"
    )

    host: str
    path: str
    expected_bytes: int
    seen_bytes: int


@dataclass(eq=False)
class NfcReadFailed(TransportError):
    """The host answered a read with an error."""

    code: ClassVar[str] = "NFC_READ_FAILED"
    status: ClassVar[StatusCode] = StatusCode.DATA_LOSS
    text: ClassVar[str] = (
        "{host} cannot read {length_bytes} bytes at {offset_bytes} of {path} ({problem}); "
        "see vmkernel.log for the datastore's state"
    )

    host: str
    path: str
    offset_bytes: int
    length_bytes: int
    problem: str


@dataclass(eq=False)
class NfcProtocolViolation(TransportError):
    """A reply does not fit its request. Nothing of it was used; the connection is closed."""

    code: ClassVar[str] = "NFC_PROTOCOL_VIOLATION"
    status: ClassVar[StatusCode] = StatusCode.INTERNAL
    text: ClassVar[str] = (
        "a reply of {source} does not fit the request: {what} is {received}, expected {expected}; "
        "if it stays so, please report this with the host's version"
    )

    what: str
    expected: str
    received: str
    source: str = "the host"
    """Host and disk, set where they are known."""
