"""What every transport offers: the frozen state of one disk, read by areas."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from agent.areas import Area

LARGEST_READ_BYTES = 2 << 20
"""Longest area that one read may ask for."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Guest bytes from byte `offset`.

    `data` is `bytes` on purpose: comparing bytes with zeros runs at memory
    speed, comparing a memoryview is more than ten times slower.
    """

    offset: int
    data: bytes


class DiskReader(Protocol):
    """One disk as one snapshot froze it.

    Threads: one thread uses a reader. `close` and `clock_s` may be called from any
    thread, also while another is blocked in a read, which `close` makes raise.
    After a TransportError only `close` makes sense; AllocationUnknown is the
    exception: the reader still reads.
    """

    @property
    def capacity_bytes(self) -> int:
        """Size of the disk in bytes, a multiple of 512."""

    def allocated_areas(self) -> list[Area]:
        """The areas that may hold data: ascending, disjoint, not adjacent, inside the capacity.

        Raises AllocationUnknown when the host does not tell, TransportError.
        """

    def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
        """Read areas, each at most LARGEST_READ_BYTES long and on the 512-byte grid.

        Yields one Extent per area, in the order given; several requests are on
        their way at a time, so `areas` is consumed ahead. Leaving the iterator
        before its end closes the reader: what was asked for is still coming.

        Raises TransportError; ValueError for an area that cannot be asked for.
        """

    def clock_s(self) -> float:
        """Monotonic seconds by which its reads are timed; any thread may ask.

        They stand still while the reader waits for its turn at a host.
        """

    def close(self) -> None:
        """Let go of the disk. May be called twice; raises nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
