"""What a disk must hold, kept by the test itself: nothing here asks the simulator or the product."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

CLUSTER: Final = 64 * 1024
_ZEROS: Final = bytes(CLUSTER)


def clusters_of(offset: int, length: int) -> range:
    """Numbers of the clusters that hold any of these bytes."""
    return range(offset // CLUSTER, -(-(offset + length) // CLUSTER))


@dataclass(frozen=True)
class Image:
    """A disk at a moment: its size, and its clusters that are not all zero."""

    capacity_bytes: int
    clusters: Mapping[int, bytes]

    @classmethod
    def of_file(cls, path: Path) -> "Image":
        """A raw file; its holes are not read."""
        found: dict[int, bytes] = {}
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            at = 0
            while at < size:
                try:
                    at = os.lseek(file.fileno(), at, os.SEEK_DATA) // CLUSTER * CLUSTER
                except OSError:  # no data up to the end
                    break
                end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                end = max(end, at + 1)
                while at < end:
                    data = os.pread(file.fileno(), CLUSTER, at).ljust(CLUSTER, b"\0")
                    if data != _ZEROS:
                        found[at // CLUSTER] = data
                    at += CLUSTER
        return cls(size, found)

    def cluster(self, number: int) -> bytes:
        """64 KiB; zeros where nothing is, beyond the end too."""
        return self.clusters.get(number, _ZEROS)

    def differing(self, other: "Image") -> set[int]:
        """Numbers of the clusters in which two images of whatever sizes differ."""
        return {
            number
            for number in self.clusters.keys() | other.clusters.keys()
            if self.cluster(number) != other.cluster(number)
        }


@dataclass
class ModelDisk:
    """A disk of the guest. Offsets and lengths are bytes and lie inside it."""

    uuid: str
    capacity_bytes: int
    _clusters: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, uuid: str, image: Image) -> "ModelDisk":
        """The disk as a snapshot froze it."""
        return cls(uuid, image.capacity_bytes, dict(image.clusters))

    def read(self, offset: int, length: int) -> bytes:
        parts = [self._clusters.get(one, _ZEROS) for one in clusters_of(offset, length)]
        start = offset % CLUSTER
        return b"".join(parts)[start : start + length]

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        assert 0 <= offset < end <= self.capacity_bytes
        for number in clusters_of(offset, len(data)):
            start = number * CLUSTER
            first, stop = max(offset, start), min(end, start + CLUSTER)
            old = self._clusters.get(number, _ZEROS)
            new = old[: first - start] + data[first - offset : stop - offset] + old[stop - start :]
            if new == _ZEROS:
                self._clusters.pop(number, None)
            else:
                self._clusters[number] = new

    def zero(self, offset: int, length: int) -> None:
        """Zeroed and trimmed bytes alike read as zeros."""
        self.write(offset, bytes(length))

    def grow(self, capacity_bytes: int) -> None:
        assert capacity_bytes > self.capacity_bytes
        self.capacity_bytes = capacity_bytes

    def image(self) -> Image:
        """What it holds now."""
        return Image(self.capacity_bytes, dict(self._clusters))
