"""A virtual disk: what the guest does to it, and what a snapshot freezes of it."""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from simulator.disks.link import ABSENT, DATA, GRAIN, ZERO, ChainView, Link, grains_of
from simulator.disks.sparse import punch_hole, write_all
from simulator.disks.tracking import ChangeId, ChangeTracking, RevertedTracking

DiskMode = Literal["persistent", "independent_persistent", "independent_nonpersistent"]


@dataclass(frozen=True)
class DiskSpec:
    """A disk to make. `content` is bytes from offset 0 or a raw image file (copied sparsely)."""

    capacity_bytes: int
    content: bytes | Path | None = None
    mode: DiskMode = "persistent"
    controller: int = 0  # number of the SCSI controller
    unit: int | None = None  # None: the next free one
    key: int | None = None  # None: 2000 + 16 * controller + unit, as ESXi counts
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    multi_writer: bool = False
    physical_rdm: bool = False


class DiskBusy(Exception):
    """The disk's links are open through NFC."""


class SimulatedDisk:
    """One disk. Every method may be called by any thread."""

    def __init__(
        self,
        spec: DiskSpec,
        *,
        key: int,
        unit: int,
        label: str,
        new_link: Callable[[int, int, Link | None], Link],
        touched: Callable[[], None],
    ) -> None:
        """`new_link(number, capacity, parent)` makes the file of link `number`, 0 is the base."""
        if spec.capacity_bytes <= 0 or spec.capacity_bytes % 512:
            raise ValueError(f"capacity {spec.capacity_bytes} is not a positive multiple of 512")
        self.key = key
        self.unit = unit
        self.controller = spec.controller
        self.label = label
        self.uuid = spec.uuid
        self.mode: DiskMode = spec.mode
        self.multi_writer = spec.multi_writer
        self.physical_rdm = spec.physical_rdm
        self.lock = threading.RLock()
        self.tracking: ChangeTracking | None = None
        self._new_link = new_link
        self._touched = touched
        self._leases = 0
        self._released = threading.Condition(self.lock)
        self.current = new_link(0, spec.capacity_bytes, None)
        if isinstance(spec.content, Path):
            self.current.adopt(spec.content)
        elif spec.content:
            self.write(0, spec.content)

    @property
    def capacity_bytes(self) -> int:
        return self.current.capacity_bytes

    @property
    def in_snapshots(self) -> bool:
        """Whether a snapshot freezes this disk."""
        return self.mode == "persistent" and not self.physical_rdm

    @property
    def content(self) -> bytes:
        """All bytes as the guest sees them now; for small disks."""
        return self.read(0, self.capacity_bytes)

    # What the guest does.

    def read(self, offset: int, length: int) -> bytes:
        """Bytes as the guest sees them now. Raises ValueError outside the disk."""
        self._check_range(offset, length)
        with self.lock:
            return ChainView(self.current, (offset, length)).read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes. Raises ValueError outside the disk."""
        with self._changing(offset, len(data)) as (first, end):
            self._copy_up(offset, len(data))
            write_all(self.current.fd, data, offset)
            self.current.states[first:end] = DATA

    def zero(self, offset: int, length: int) -> None:
        """Write zeros: the grains stay allocated. Raises ValueError outside the disk."""
        with self._changing(offset, length) as (first, end):
            self._copy_up(offset, length)
            punch_hole(self.current.fd, offset, length)
            self.current.states[first:end] = DATA

    def trim(self, offset: int, length: int) -> None:
        """Give space back: whole grains lose their storage, parts of grains become zeros.

        The disk's last grain counts as whole when the range reaches the end.
        Raises ValueError outside the disk.
        """
        with self._changing(offset, length):
            to_end = offset + length == self.capacity_bytes
            first = grains_of(offset)
            end = len(self.current.states) if to_end else (offset + length) // GRAIN
            if first >= end:
                self.zero(offset, length)
                return
            head = first * GRAIN - offset
            tail = 0 if to_end else offset + length - end * GRAIN
            if head:
                self.zero(offset, head)
            if tail:
                self.zero(end * GRAIN, tail)
            punch_hole(self.current.fd, first * GRAIN, length - head - tail)
            self.current.states[first:end] = ABSENT if self.current.parent is None else ZERO

    def grow(self, capacity_bytes: int) -> None:
        """Extend the disk. Raises ValueError when it would shrink or has snapshots."""
        with self.lock:
            if capacity_bytes % 512 or capacity_bytes <= self.capacity_bytes:
                raise ValueError(
                    f"{self.label}: new capacity {capacity_bytes} must be a multiple of 512 "
                    f"above {self.capacity_bytes}"
                )
            if self.current.parent is not None:
                raise ValueError(f"{self.label}: a disk with snapshots cannot grow")
            self.current.grow(capacity_bytes)
            if self.tracking:
                self.tracking.grow(grains_of(capacity_bytes))
        self._touched()

    @contextmanager
    def _changing(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        self._check_range(offset, length)
        first, end = offset // GRAIN, grains_of(offset + length)
        with self.lock:
            try:
                yield first, end
            finally:  # a write that failed half-way may have changed something, too
                if self.tracking:
                    self.tracking.mark(first, end)

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length <= 0 or offset + length > self.capacity_bytes:
            raise ValueError(
                f"{self.label}: {length} bytes at {offset} are not inside its "
                f"{self.capacity_bytes} bytes"
            )

    def _copy_up(self, offset: int, length: int) -> None:
        """Bring the first and last grain into the current link when only a part is overwritten."""
        end = offset + length
        for grain in {offset // GRAIN, (end - 1) // GRAIN}:
            start = grain * GRAIN
            stop = min(start + GRAIN, self.capacity_bytes)
            whole = offset <= start and end >= stop
            if not whole and self.current.states[grain] != DATA:
                held = ChainView(self.current, (start, stop - start)).read(start, stop - start)
                write_all(self.current.fd, held, start)
                self.current.states[grain] = DATA

    # What snapshots and readers do.

    def freeze(self, number: int) -> tuple[Link, ChangeId | None]:
        """Freeze the current link; the guest goes on in a new one, `number`."""
        with self.lock:
            frozen = self.current
            self.current = self._new_link(number, frozen.capacity_bytes, frozen)
            return frozen, self.tracking.freeze() if self.tracking else None

    def revert(self, number: int, link: Link) -> None:
        """Go on from a frozen link; what the current one held is dropped by the caller."""
        with self.lock:
            self.current = self._new_link(number, link.capacity_bytes, link)

    def set_tracking(self, wanted: bool) -> None:
        """At a stun: tracking starts or ends if that was asked for."""
        with self.lock:
            if not wanted or not self.in_snapshots:
                self.tracking = None
            elif self.tracking is None:
                self.tracking = ChangeTracking(grains_of(self.capacity_bytes))

    def reset_tracking(self) -> None:
        """Forget all changes, as a power loss or a revert does: the uuid is a new one."""
        with self.lock:
            if self.tracking:
                self.tracking = ChangeTracking(grains_of(self.capacity_bytes))

    def revert_tracking(
        self, how: RevertedTracking, tracking: ChangeTracking, frozen: ChangeId
    ) -> None:
        """What a revert to the moment `frozen` of `tracking` makes of the disk's tracking."""
        with self.lock:
            if how == "new":
                self.reset_tracking()
            elif how == "back":
                self.tracking = ChangeTracking.gone_back(tracking, frozen)
            else:
                same = [one for one in (tracking, self.tracking) if one and one.uuid == frozen.uuid]
                last = max(one.sequence for one in same)
                self.tracking = ChangeTracking.emptied(tracking, last)

    def lease(self) -> None:
        """A reader opened one of the links: none is consolidated until it lets go."""
        with self.lock:
            self._leases += 1

    def release(self) -> None:
        """The reader let go."""
        with self.lock:
            self._leases -= 1
            self._released.notify_all()

    @contextmanager
    def consolidating(self, timeout_s: float) -> Iterator[None]:
        """Hold the disk while its links are merged. Raises DiskBusy when readers stay."""
        with self.lock:
            if not self._released.wait_for(lambda: self._leases == 0, timeout_s):
                raise DiskBusy(self.label)
            yield

    def allocated(self, link: Link) -> npt.NDArray[np.bool_]:
        """Per grain: whether a link, read as composed, has storage for it."""
        with self.lock:
            return ChainView(link).allocated
