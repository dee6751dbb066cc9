"""Faults of NFC: tickets, connections, replies."""

from typing import ClassVar, Literal

from pydantic import Field

from simulator.faults.kind import AreaFault, Bytes, FaultKind, Scope


class NfcTicketExpired(FaultKind):
    """A ticket is worthless when it is used: the host no longer knows it."""

    NAME: ClassVar[str] = "nfc-ticket-expired"
    SCOPE: ClassVar[Scope] = Scope.VM


class NfcTicketRefused(FaultKind):
    """A ticket is refused at login, and not used up."""

    NAME: ClassVar[str] = "nfc-ticket-refused"
    SCOPE: ClassVar[Scope] = Scope.VM


class NfcCut(FaultKind):
    """A connection is cut: at a byte of what the host sends on it, or at a read request."""

    NAME: ClassVar[str] = "nfc-cut"
    SCOPE: ClassVar[Scope] = Scope.DISK

    at_byte: Bytes | None = Field(
        None, ge=0, description="counted from the banner, without TLS; none: at a read request"
    )


class NfcStall(FaultKind):
    """The host says nothing more until the fault is cleared or the reader leaves.

    `times=1`: one connection stalls, others go on.
    """

    NAME: ClassVar[str] = "nfc-stall"
    SCOPE: ClassVar[Scope] = Scope.DISK

    at_byte: Bytes | None = Field(
        None, ge=0, description="counted from the banner, without TLS; none: at a read request"
    )


class NfcErrorReply(FaultKind):
    """A request is answered with an error."""

    NAME: ClassVar[str] = "nfc-error-reply"
    SCOPE: ClassVar[Scope] = Scope.DISK

    on: Literal["read", "open", "allocated"] = Field("read", description="the request")
    code: int = Field(1, ge=0, le=0xFFFFFFFF, description="of the error")
    offset: Bytes | None = Field(None, ge=0, description="only reads over this byte of the disk")


class NfcBadFragment(FaultKind):
    """A number in a read reply is wrong."""

    NAME: ClassVar[str] = "nfc-bad-fragment"
    SCOPE: ClassVar[Scope] = Scope.DISK

    field: Literal[
        "length", "extra_bytes", "within", "total", "offset", "frame_bytes", "operation"
    ] = Field("length", description="which number")
    by: int = Field(512, description="how much it is off; may be negative")


class NfcConnectionLimit(FaultKind):
    """The host drops NFC connections beyond a number, after their tickets are used."""

    NAME: ClassVar[str] = "nfc-connection-limit"
    SCOPE: ClassVar[Scope] = Scope.HOST

    limit: int = Field(ge=0, description="connections at a time")


class AllocationWrong(AreaFault):
    """Allocated areas are called unallocated by NFC's allocation query and change id `*`."""

    NAME: ClassVar[str] = "allocation-wrong"
    SCOPE: ClassVar[Scope] = Scope.DISK
