"""What the agent sampled of each disk, as it asked `agent.sampling` for it."""

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from agent import sampling
from agent.areas import Area
from agent.sampling import Sample, SampleSettings
from tests.model.disks import clusters_of


@dataclass(frozen=True)
class Drawn:
    """What a sample was drawn from; the sample itself follows from this and the job's id."""

    job_id: str
    disk_index: int
    changed: tuple[Area, ...]
    allocated: tuple[Area, ...]
    capacity_bytes: int
    settings: SampleSettings

    @cached_property
    def sample(self) -> Sample:
        """Drawn once more, from the job's id."""
        return sampling.choose_sample(
            self.job_id,
            self.disk_index,
            self.changed,
            self.allocated,
            self.capacity_bytes,
            self.settings,
        )

    @cached_property
    def called_changed(self) -> set[int]:
        """Clusters that tracking told of."""
        return _clusters(self.changed)

    @cached_property
    def population(self) -> set[int]:
        """Allocated clusters that tracking called unchanged."""
        return _clusters(self.allocated) - self.called_changed


class SampleLog:
    """While the block runs, notes from what each sample is drawn; the agent draws as ever."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[str, int], tuple[Drawn, Sample]] = {}
        self._lock = threading.Lock()
        self._choose = sampling.choose_sample

    def of(self, job_id: str, disk_index: int) -> Drawn | None:
        """None when nothing was sampled of the disk. The agent's sample is one that can be repeated."""
        with self._lock:
            found = self._drawn.get((job_id, disk_index))
        if found is None:
            return None
        drawn, sample = found
        assert drawn.sample == sample, "drawn again, it is another sample"
        return drawn

    def _noted(
        self,
        seed: str,
        disk_index: int,
        changed: Sequence[Area],
        allocated: Sequence[Area],
        capacity_bytes: int,
        settings: SampleSettings,
    ) -> Sample:
        sample = self._choose(seed, disk_index, changed, allocated, capacity_bytes, settings)
        drawn = Drawn(seed, disk_index, tuple(changed), tuple(allocated), capacity_bytes, settings)
        with self._lock:
            self._drawn[seed, disk_index] = (drawn, sample)
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
