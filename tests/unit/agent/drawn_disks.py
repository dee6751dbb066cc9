"""Disks drawn as text: a letter is a cluster full of that letter's data, a dot a cluster of zeros."""

import random
import threading
import time
from collections.abc import Iterable, Iterator

from agent.areas import Area, merge
from agent.transports.disk_reader import Extent
from agent.transports.errors import AllocationUnknown, ReaderClosed
from sendense.clusters import CLUSTER_BYTES


def cluster_of(letter: str) -> bytes:
    """Compressible for lower-case letters, incompressible for capitals, zeros for a dot."""
    if letter == ".":
        return bytes(CLUSTER_BYTES)
    source = random.Random(letter)
    return source.randbytes(CLUSTER_BYTES) if letter.isupper() else source.randbytes(256) * 256


def drawn(text: str, *, cut_bytes: int = 0) -> bytes:
    """The disk's bytes; the last `cut_bytes` are missing: a size off the cluster grid."""
    content = b"".join(cluster_of(letter) for letter in text)
    return content[: len(content) - cut_bytes]


class MemoryReader:
    """A DiskReader over bytes in memory, with faults by area number."""

    def __init__(
        self,
        content: bytes,
        *,
        fail_at: dict[int, Exception] | None = None,
        block_at: int | None = None,
        change: dict[int, Extent | None] | None = None,
        allocated: list[Area] | None = None,
    ) -> None:
        self._content = content
        self._fail_at = fail_at or {}
        self._block_at = block_at
        self._change = change or {}
        self._allocated = allocated
        self._closed = threading.Event()
        self.blocked = threading.Event()
        self.areas_read: list[Area] = []
        self.faults_fired = 0

    @property
    def capacity_bytes(self) -> int:
        return len(self._content)

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def allocated_areas(self) -> list[Area]:
        if self._allocated is None:
            raise AllocationUnknown("memory", "not asked for")
        return merge(self._allocated)

    def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
        for number, area in enumerate(areas):
            if self._closed.is_set():
                raise ReaderClosed("memory")
            if number in self._fail_at:
                self.faults_fired += 1
                raise self._fail_at[number]
            if number == self._block_at:
                self.faults_fired += 1
                self.blocked.set()
                assert self._closed.wait(60), "nobody closed a blocked reader"
                raise ReaderClosed("memory")
            self.areas_read.append(area)
            if number in self._change:
                self.faults_fired += 1
                changed = self._change[number]
                if changed is None:
                    return
                yield changed
            else:
                yield Extent(area.start, self._content[area.start : area.end])

    def clock_s(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        self._closed.set()

    def __enter__(self) -> "MemoryReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
