"""What the agent sampled of each disk, as it asked `agent.sampling` for it."""

import math
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from agent import sampling
from agent.areas import Area
from agent.sampling import Sample, SampleSettings, Unread
from tests.model.disks import clusters_of


@dataclass(frozen=True)
class Drawn:
    """What a sample was drawn from; the sample itself follows from this and the job's id."""

    job_id: str
    disk_index: int
    method: str
    unread: Unread
    settings: SampleSettings

    @cached_property
    def sample(self) -> Sample:
        """Drawn once more, from the job's id."""
        return sampling.choose_sample(
            self.job_id, self.disk_index, self.method, self.unread, self.settings
        )

    @cached_property
    def strata(self) -> tuple[set[int], ...]:
        """The clusters of each draw: called allocated but unchanged, called unallocated."""
        return _clusters(self.unread.allocated), _clusters(self.unread.unallocated)

    @cached_property
    def population(self) -> set[int]:
        """All clusters that the sample stands for: those that are not read otherwise."""
        return set().union(*self.strata)

    def chance_to_miss(self, differing: set[int]) -> float:
        """Probability that the even draws hit none of them: C(N - b, n) / C(N, n) of each."""
        chance = 1.0
        for draw, stratum in zip(self.sample.draws, self.strata, strict=True):
            same = draw.population - len(differing & stratum)
            chance *= math.comb(same, draw.drawn) / math.comb(draw.population, draw.drawn)
        return chance


@dataclass
class Samples:
    """All samples of one disk of one job, one after the other; the last is of what was used."""

    drawn: list[Drawn] = field(default_factory=list)

    @property
    def last(self) -> Drawn:
        return self.drawn[-1]

    @property
    def clusters(self) -> set[int]:
        """Every cluster that was read for one of them."""
        return {number for one in self.drawn for number in one.sample.clusters}

    @property
    def of_tracking(self) -> Drawn | None:
        """The one of what tracking called unchanged."""
        return next((one for one in self.drawn if one.method == "READ_METHOD_CHANGED"), None)


class SampleLog:
    """While the block runs, notes from what each sample is drawn; the agent draws as ever."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[str, int], list[tuple[Drawn, Sample]]] = {}
        self._lock = threading.Lock()
        self._choose = sampling.choose_sample

    def of(self, job_id: str, disk_index: int) -> Samples:
        """Each of the agent's samples is one that can be repeated."""
        with self._lock:
            found = list(self._drawn.get((job_id, disk_index), []))
        for drawn, sample in found:
            assert drawn.sample == sample, "drawn again, it is another sample"
        return Samples([drawn for drawn, _ in found])

    def _noted(
        self,
        job_id: str,
        disk_index: int,
        method: str,
        unread: Unread,
        settings: SampleSettings,
    ) -> Sample:
        sample = self._choose(job_id, disk_index, method, unread, settings)
        drawn = Drawn(job_id, disk_index, method, unread, settings)
        with self._lock:
            self._drawn.setdefault((job_id, disk_index), []).append((drawn, sample))
        return sample

    def __enter__(self) -> Self:
        self._replace(self._choose, self._noted)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._replace(self._noted, self._choose)

    @staticmethod
    def _replace(old: object, new: object) -> None:
        """In the modules of the agent that took the function's name; not where it is defined."""
        for name, module in list(sys.modules.items()):
            if name.startswith("agent.") and module is not sampling:
                for attribute, value in list(vars(module).items()):
                    if value == old:
                        setattr(module, attribute, new)


def _clusters(areas: Sequence[Area]) -> set[int]:
    return {number for one in areas for number in clusters_of(one.start, one.length)}
