"""One answer of QueryChangedDiskAreas: a slice of the disk, cut as hosts do, and lied about.

Faults act on the slice that an answer covers, so each answer is one chance to fire.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simulator.behaviour import DEFAULT_SLICE_BYTES, LARGEST_SLICE_AREAS
from simulator.changed_areas import ChangedArea
from simulator.disks.link import GRAIN, grains_of
from simulator.faults.armed import Armed
from simulator.faults.board import FaultBoard
from simulator.faults.kind import AreaFault, Place
from simulator.faults.nfc_kinds import AllocationWrong
from simulator.faults.tracking_kinds import (
    CbtBeyondCapacity,
    CbtExtra,
    CbtGap,
    CbtOmit,
    CbtOverlap,
    CbtSliceBytes,
    CbtUnsorted,
    CbtZeroSlice,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query is answered: a slice in bytes, and the areas in it."""

    start: int
    length: int
    areas: list[ChangedArea]


class ChangedAnswers:
    """Answers queries for one site's disks."""

    def __init__(self, faults: FaultBoard) -> None:
        self._faults = faults

    def answer(
        self, at: Place, start: int, capacity: int, areas: list[ChangedArea], *, allocated: bool
    ) -> Answer:
        """The answer for a disk whose true areas from `start` on are given.

        `allocated`: the areas are the allocated ones (change id `*`), not changed ones.
        """
        answer = self._slice(at, start, capacity, areas)
        if allocated:
            answer = self._without(at, answer, self._faults.look(AllocationWrong, at))
        else:
            answer = self._without(at, answer, self._faults.look(CbtOmit, at))
            answer = self._with_more(at, answer)
        answer = self._disordered(at, answer)
        return self._misplaced(at, answer, capacity)

    def _slice(self, at: Place, start: int, capacity: int, areas: list[ChangedArea]) -> Answer:
        """Limited in bytes and in areas."""
        slice_bytes, most = DEFAULT_SLICE_BYTES, LARGEST_SLICE_AREAS
        for one in self._faults.look(CbtSliceBytes, at):
            if one.fire(at, offset=start):
                slice_bytes = min(slice_bytes, one.kind.bytes or slice_bytes)
                most = min(most, one.kind.areas or most)
        end = min(start + slice_bytes, capacity)
        inside = [one for one in areas if one.start < end]
        if len(inside) > most:
            end = inside[most].start
            inside = inside[:most]
        cut = [ChangedArea(one.start, min(one.length, end - one.start)) for one in inside]
        return Answer(start, end - start, cut)

    # Lies about what is in a slice.

    def _without(
        self, at: Place, answer: Answer, faults: Iterable[Armed[CbtOmit] | Armed[AllocationWrong]]
    ) -> Answer:
        for one in faults:
            named = _grains(answer)
            hidden = named & _picked(one.kind, answer)
            if hidden.any() and one.fire(at, areas=_shown(answer, hidden)):
                answer = replace(answer, areas=_areas(answer, named & ~hidden))
        return answer

    def _with_more(self, at: Place, answer: Answer) -> Answer:
        for one in self._faults.look(CbtExtra, at):
            named = _grains(answer)
            added = ~named & _picked(one.kind, answer)
            if added.any() and one.fire(at, areas=_shown(answer, added)):
                answer = replace(answer, areas=_areas(answer, named | added))
        return answer

    # Answers that make no sense.

    def _disordered(self, at: Place, answer: Answer) -> Answer:
        areas = answer.areas
        if len(areas) > 1 and self._faults.fire(CbtUnsorted, at):
            areas = areas[::-1]
        if areas and self._faults.fire(CbtOverlap, at):
            first = areas[0]
            areas = [first, replace(first, start=first.start + first.length // 2), *areas[1:]]
        return replace(answer, areas=areas)

    def _misplaced(self, at: Place, answer: Answer, capacity: int) -> Answer:
        if answer.start + answer.length == capacity:
            beyond = self._faults.fire(CbtBeyondCapacity, at)
            if beyond and beyond.kind.what == "area":
                areas = [*answer.areas, ChangedArea(capacity, GRAIN)]
                answer = replace(answer, areas=areas)
            elif beyond:
                answer = replace(answer, length=answer.length + GRAIN)
        gap = self._faults.fire(CbtGap, at)
        if gap:
            answer = replace(answer, start=answer.start + gap.kind.bytes)
        if self._faults.fire(CbtZeroSlice, at, lambda kind: answer.start >= kind.at_offset):
            answer = replace(answer, length=0, areas=[])
        return answer


def _starts(answer: Answer) -> npt.NDArray[np.int64]:
    """First bytes of the grains that a slice touches."""
    first, end = answer.start // GRAIN, grains_of(answer.start + answer.length)
    return np.arange(first, end, dtype=np.int64) * GRAIN


def _grains(answer: Answer) -> npt.NDArray[np.bool_]:
    """Per grain of the slice: whether an area covers it."""
    first = answer.start // GRAIN
    named = np.zeros(len(_starts(answer)), bool)
    for area in answer.areas:
        named[area.start // GRAIN - first : grains_of(area.start + area.length) - first] = True
    return named


def _picked(kind: AreaFault, answer: Answer) -> npt.NDArray[np.bool_]:
    return kind.picks(_starts(answer), GRAIN)


def _areas(answer: Answer, named: npt.NDArray[np.bool_]) -> list[ChangedArea]:
    """The areas that cover the named grains of a slice, clipped to it."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], named, [False])).astype(np.int8)))
    first = answer.start // GRAIN
    found: list[ChangedArea] = []
    for begin, end in edges.reshape(-1, 2).tolist():
        start = max((first + begin) * GRAIN, answer.start)
        stop = min((first + end) * GRAIN, answer.start + answer.length)
        found.append(ChangedArea(start, stop - start))
    return found


def _shown(answer: Answer, grains: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, length) of areas, for who asks the fault what it did."""
    return [(one.start, one.length) for one in _areas(answer, grains)]
