"""A DiskReader over a raw file: the agent's pipeline without a site."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.areas import EXTENT_BYTES, Area, whole_disk
from agent.transports.disk_reader import Extent
from agent.upload_reading import ZERO_EXTENT


class FileReader:
    """Reads areas with one system call each; see DiskReader for the contract."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._capacity = os.fstat(self._fd).st_size

    @property
    def capacity_bytes(self) -> int:
        return self._capacity

    def allocated_areas(self) -> list[Area]:
        """The whole disk: nothing tells the pipeline where the zeros are."""
        return whole_disk(self._capacity)

    def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
        # One buffer for all reads stays in the processor's cache, which a new one
        # each time does not.
        buffer = bytearray(EXTENT_BYTES)
        for area in areas:
            if self._fd is None:
                raise OSError(f"{self._path} is closed")
            view = memoryview(buffer)[: area.length]
            if os.preadv(self._fd, [view], area.start) != area.length:
                raise OSError(f"{self._path} is shorter than it was")
            # As the NFC reader does with holes: zeros are one object.
            hole = area.length == EXTENT_BYTES and buffer == ZERO_EXTENT
            yield Extent(area.start, ZERO_EXTENT if hole else bytes(view))

    def clock_s(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
