"""Faults of changed block tracking: it fails, is reset, lies, or answers what makes no sense."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from simulator.faults.kind import AreaFault, Bytes, FaultKind, Scope


class FileFault(FaultKind):
    """A query for changed areas ends with FileFault."""

    NAME: ClassVar[str] = "file-fault"
    SCOPE: ClassVar[Scope] = Scope.DISK

    at_offset: Bytes = Field(0, ge=0, description="only queries from this byte on")


class ChangeIdUuid(FaultKind):
    """Tracking is reset just before a snapshot: its change ids have a new uuid."""

    NAME: ClassVar[str] = "change-id-uuid"
    SCOPE: ClassVar[Scope] = Scope.DISK


class ChangeIdMissing(FaultKind):
    """A snapshot's disks have no change id, though tracking is on."""

    NAME: ClassVar[str] = "change-id-missing"
    SCOPE: ClassVar[Scope] = Scope.DISK


class CbtSliceBytes(FaultKind):
    """An answer covers less of the disk than usual."""

    NAME: ClassVar[str] = "cbt-slice-bytes"
    SCOPE: ClassVar[Scope] = Scope.DISK

    bytes: Bytes | None = Field(None, gt=0, description="of the disk in one answer, at most")
    areas: int | None = Field(None, gt=0, description="in one answer, at most")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.bytes is None and self.areas is None:
            raise ValueError("bytes or areas says what is limited")
        return self


class CbtZeroSlice(FaultKind):
    """An answer covers nothing: its slice has no length."""

    NAME: ClassVar[str] = "cbt-zero-slice"
    SCOPE: ClassVar[Scope] = Scope.DISK

    at_offset: Bytes = Field(0, ge=0, description="only answers from this byte on")


class CbtGap(FaultKind):
    """An answer's slice starts later than was asked for."""

    NAME: ClassVar[str] = "cbt-gap"
    SCOPE: ClassVar[Scope] = Scope.DISK

    bytes: Bytes = Field(64 * 1024, gt=0, description="how much later")


class CbtUnsorted(FaultKind):
    """An answer's areas come in descending order. Fires on answers with two areas or more."""

    NAME: ClassVar[str] = "cbt-unsorted"
    SCOPE: ClassVar[Scope] = Scope.DISK


class CbtOverlap(FaultKind):
    """Two areas of an answer overlap. Fires on answers with an area."""

    NAME: ClassVar[str] = "cbt-overlap"
    SCOPE: ClassVar[Scope] = Scope.DISK


class CbtBeyondCapacity(FaultKind):
    """The last answer goes beyond the disk's end: with an area, or with its slice."""

    NAME: ClassVar[str] = "cbt-beyond-capacity"
    SCOPE: ClassVar[Scope] = Scope.DISK

    what: Literal["area", "slice"] = "area"


class CbtOmit(AreaFault):
    """Areas that changed are left out of answers: the lie that loses data."""

    NAME: ClassVar[str] = "cbt-omit"
    SCOPE: ClassVar[Scope] = Scope.DISK


class CbtExtra(AreaFault):
    """Answers name areas that did not change."""

    NAME: ClassVar[str] = "cbt-extra"
    SCOPE: ClassVar[Scope] = Scope.DISK
