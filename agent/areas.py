"""Areas of a disk: byte ranges, and the arithmetic that backups need of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Area:
    """`length` bytes of a disk from byte offset `start`."""

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length
