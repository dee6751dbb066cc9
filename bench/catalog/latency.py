"""How long something took, again and again."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

# The first calls of a kind compile its statements: once in a hub's life.
WARM_UPS: Final = 2


@dataclass(frozen=True, slots=True)
class Latency:
    """Of `samples` calls, in milliseconds."""

    samples: int
    p50_ms: float
    p99_ms: float
    worst_ms: float

    def figures(self) -> dict[str, float | int]:
        """As the result file has them."""
        return {
            "samples": self.samples,
            "p50_ms": round(self.p50_ms, 2),
            "p99_ms": round(self.p99_ms, 2),
            "worst_ms": round(self.worst_ms, 2),
        }


def latency_of(times_s: Sequence[float]) -> Latency:
    """Percentiles by nearest rank: a value that was measured."""
    ordered = sorted(times_s)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1e3

    return Latency(len(ordered), rank(0.50), rank(0.99), ordered[-1] * 1e3)


def measure(call: Callable[[], int], samples: int) -> tuple[Latency, float]:
    """Call it so often, one after the other; how long, and the mean of what it returned."""
    for _ in range(WARM_UPS):
        call()
    times: list[float] = []
    returned = 0
    for _ in range(samples):
        begin = time.perf_counter()
        returned += call()
        times.append(time.perf_counter() - begin)
    return latency_of(times), returned / samples
