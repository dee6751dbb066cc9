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
        "cannot connect to {host}:{port} to read disks: {problem}; "
        "the agent must resolve this name and reach this TCP port (usually 902)"
    )

    host: str
    port: int
    problem: str


@dataclass(eq=False)
class NfcTimedOut(TransportError):
    """The host did not answer in time; the connection is closed."""

    code: ClassVar[str] = "NFC_TIMED_OUT"
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "{host}:{port} did not answer for {timeout_s:g} s while {doing}; "
        "see whether the host is overloaded or the network drops packets"
    )

    host: str
    port: int
    timeout_s: float
    doing: str


@dataclass(eq=False)
class NfcConnectionLost(TransportError):
    """The host or the network ended the connection."""

    code: ClassVar[str] = "NFC_CONNECTION_LOST"
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "the connection to {host}:{port} broke while {doing}: {problem}; "
        "the host's log (hostd.log, vpxa.log) tells why"
    )

    host: str
    port: int
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
    """The host refused the session before a disk was opened."""

    code: ClassVar[str] = "NFC_REFUSED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "{host}:{port} refused to {doing}: {reply}; try the other transport (nbdssl, nbd), "
        "and see whether the host has NFC connections left"
    )

    host: str
    port: int
    doing: str
    reply: str


@dataclass(eq=False)
class NfcOpenRefused(TransportError):
    """The host does not open the disk file."""

    code: ClassVar[str] = "NFC_OPEN_REFUSED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "the host does not open {path} for reading ({problem}); the file must be the link that "
        "the job's snapshot froze, and no other program may hold it"
    )

    path: str
    problem: str


@dataclass(eq=False)
class NfcReadFailed(TransportError):
    """The host answered a read with an error."""

    code: ClassVar[str] = "NFC_READ_FAILED"
    status: ClassVar[StatusCode] = StatusCode.DATA_LOSS
    text: ClassVar[str] = (
        "the host cannot read {length_bytes} bytes at {offset_bytes} of {path} ({problem}); "
        "see vmkernel.log for the datastore's state"
    )

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
        "reply does not fit the request: {what} is {received}, expected {expected}; "
        "please report this with the host's version"
    )

    what: str
    expected: str
    received: str
