"""What every kind of fault is made of: a name, a scope, options with types, a place."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from simulator.sizes import parse_size

_GRAIN: Final = 64 * 1024

Bytes = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=int | str)]


class Scope(IntEnum):
    """The narrowest thing that a fault can be set for."""

    HOST = 0
    VM = 1
    DISK = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where something happens: a VM's managed object id and a disk's device key, where known."""

    vm: str | None = None
    disk: int | None = None


class FaultKind(BaseModel):
    """One kind of fault; the fields are its options, the docstring says what happens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    NAME: ClassVar[str]
    SCOPE: ClassVar[Scope]


class AreaFault(FaultKind):
    """A fault about areas of a disk: those of a range, a repeatable share of them, or all."""

    offset: Bytes | None = Field(None, ge=0, description="first byte of the range")
    length: Bytes | None = Field(
        None, gt=0, description="bytes of the range; none: to the disk's end"
    )
    fraction: float | None = Field(None, gt=0, le=1, description="share of the 64 KiB grains")
    seed: int = Field(0, ge=0, description="which grains the share takes")

    def picks(self, starts: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.bool_]:
        """Which areas are hit, of those that start at the given bytes and have `width` bytes.

        The same areas whenever and in whatever order they are asked for.
        """
        picked = np.ones(len(starts), bool)
        if self.offset is not None or self.length is not None:
            first = self.offset or 0
            picked &= starts + width > first
            if self.length is not None:
                picked &= starts < first + self.length
        if self.fraction is not None:
            picked &= _shares(starts // _GRAIN, self.seed) < self.fraction
        return picked


def _shares(grains: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) per grain, as random as needed and always the same (splitmix64)."""
    with np.errstate(over="ignore"):
        state = grains.astype(np.uint64) + np.uint64(1)
        state = state * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / float(1 << 53)
