"""Changed block tracking: which grains changed between two change ids of one disk."""

import re
import uuid
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

_CHANGE_ID = re.compile(
    r"(?P<uuid>(?:[0-9a-f]{2} ){7}[0-9a-f]{2}-(?:[0-9a-f]{2} ){7}[0-9a-f]{2})/(?P<sequence>\d+)"
)

# What a revert does to tracking. "new": it starts over with a new uuid, as is documented.
# "back": each link has its own tracking file, and the frozen link's goes on. So the uuid
# stays, what was tracked since the snapshot is forgotten, and sequence numbers repeat: a
# change id from after the snapshot looks valid and is answered too little.
# "emptied": the uuid stays and the sequence advances, but all that was tracked is
# forgotten: every change id from before the revert is answered too little.
RevertedTracking = Literal["new", "back", "emptied"]
REVERTED_TRACKING: tuple[RevertedTracking, ...] = ("new", "back", "emptied")


@dataclass(frozen=True, slots=True)
class ChangeId:
    """`<uuid>/<sequence>`: a moment in the life of one tracking."""

    uuid: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.uuid}/{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> "ChangeId | None":
        """None when the text is no change id."""
        match = _CHANGE_ID.fullmatch(text)
        return cls(match["uuid"], int(match["sequence"])) if match else None


def _new_uuid() -> str:
    octets = [f"{octet:02x}" for octet in uuid.uuid4().bytes]
    return " ".join(octets[:8]) + "-" + " ".join(octets[8:])


class ChangeTracking:
    """The changes of one disk since tracking became active. The disk's lock guards it.

    Each stun closes a period; a period's changed grains are kept under its sequence number.
    """

    def __init__(self, grains: int) -> None:
        self.uuid = _new_uuid()
        self.sequence = 1
        self._periods: dict[int, npt.NDArray[np.int64]] = {}
        self._changed = np.zeros(grains, bool)

    @classmethod
    def gone_back(cls, tracking: "ChangeTracking", frozen: ChangeId) -> "ChangeTracking":
        """The tracking as a snapshot froze it, going on from there under the same uuid.

        What was tracked after `frozen` is forgotten, and its sequence numbers are
        given out again, for other changes.
        """
        back = cls(len(tracking._changed))
        back.uuid = frozen.uuid
        back.sequence = frozen.sequence + 1
        back._periods = {
            sequence: grains
            for sequence, grains in tracking._periods.items()
            if sequence <= frozen.sequence
        }
        return back

    @classmethod
    def emptied(cls, tracking: "ChangeTracking", last_sequence: int) -> "ChangeTracking":
        """The same uuid, and no changes of before; numbers go on after `last_sequence`."""
        empty = cls(len(tracking._changed))
        empty.uuid = tracking.uuid
        empty.sequence = last_sequence + 1
        return empty

    @property
    def now(self) -> ChangeId:
        """The change id that the live disk shows."""
        return ChangeId(self.uuid, self.sequence)

    def mark(self, first_grain: int, end_grain: int) -> None:
        """Note that the grains [first, end) were written, zeroed or given back."""
        self._changed[first_grain:end_grain] = True

    def grow(self, grains: int) -> None:
        """The disk has more grains now; the new ones count as changed."""
        added = grains - len(self._changed)
        self._changed = np.concatenate((self._changed, np.ones(added, bool)))

    def freeze(self) -> ChangeId:
        """Close the period: the id of this very moment. The live disk moves on to a later one."""
        self.sequence += 1
        self._periods[self.sequence] = np.flatnonzero(self._changed)
        self._changed[:] = False
        frozen = self.now
        self.sequence += 1
        return frozen

    def changed_between(self, base: ChangeId, until: ChangeId) -> npt.NDArray[np.int64] | None:
        """Grains that changed after `base` up to `until`, ascending; None for an unknown base."""
        if base.uuid != self.uuid or not 1 <= base.sequence <= until.sequence:
            return None
        parts = [
            grains
            for sequence, grains in self._periods.items()
            if base.sequence < sequence <= until.sequence
        ]
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)

    def changed_since(self, base: ChangeId) -> npt.NDArray[np.int64] | None:
        """The same up to the present moment, for a disk that no snapshot holds."""
        closed = self.changed_between(base, ChangeId(self.uuid, max(self.sequence, base.sequence)))
        if closed is None:
            return None
        return np.union1d(closed, np.flatnonzero(self._changed))
