"""A fault that was set: where, how often it may fire, and what it did."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from simulator.faults.kind import FaultKind, Place

_FIRINGS_KEPT: Final = 1000
_SHOWN: Final = 20

K = TypeVar("K", bound=FaultKind)


@dataclass(frozen=True, slots=True)
class Firing:
    """One time that a fault fired; `detail` is what it did, by kind."""

    place: Place
    detail: dict[str, Any]


@dataclass(eq=False)
class Armed(Generic[K]):
    """A fault on the board. Any thread may call; `condition` is the board's."""

    number: int
    kind: K
    vm: str | None  # the VM's name when the fault was set, for people
    place: Place
    times: int | None  # None: until it is cleared
    skip: int  # chances that it still lets pass
    condition: threading.Condition = field(repr=False)
    changed: Callable[[], None] = field(repr=False)
    fired: int = 0
    cleared: bool = False
    firings: deque[Firing] = field(default_factory=lambda: deque(maxlen=_FIRINGS_KEPT))

    @property
    def live(self) -> bool:
        """Whether it may still fire."""
        return not self.cleared and (self.times is None or self.fired < self.times)

    def covers(self, place: Place) -> bool:
        """Whether a place is in its scope."""
        return self.place.vm in (None, place.vm) and self.place.disk in (None, place.disk)

    def fire(self, place: Place | None = None, **detail: Any) -> bool:
        """It has a chance now: whether it takes it. The caller then does what it stands for."""
        with self.condition:
            if not self.live:
                return False
            if self.skip:
                self.skip -= 1
                return False
            self.fired += 1
            self.firings.append(Firing(place or Place(), detail))
            self.condition.notify_all()
        self.changed()
        return True

    def wait_fired(self, timeout_s: float, times: int = 1) -> bool:
        """Wait until it has fired so often; False when it did not in time."""
        with self.condition:
            return self.condition.wait_for(lambda: self.fired >= times, timeout_s)

    def wait_cleared(self, timeout_s: float) -> bool:
        """Wait until somebody clears it; False when nobody did in time."""
        with self.condition:
            return self.condition.wait_for(lambda: self.cleared, timeout_s)

    @property
    def missing(self) -> str | None:
        """What has not happened yet of what was ordered; None when all has."""
        wanted = self.times or 1
        return None if self.fired >= wanted else f"{self} fired {self.fired} of {wanted} times"

    def __str__(self) -> str:
        options = self.kind.model_dump(exclude_defaults=True)
        where = [f"on {self.vm}"] if self.vm else []
        where += [f"disk {self.place.disk}"] if self.place.disk is not None else []
        return " ".join([self.kind.NAME, *where, *(f"{k}={v}" for k, v in options.items())])

    def facts(self) -> dict[str, Any]:
        """For the list, as plain values."""
        with self.condition:
            last = self.firings[-1] if self.firings else None
            return {
                "number": self.number,
                "name": self.kind.NAME,
                "vm": self.vm,
                "disk": self.place.disk,
                "options": self.kind.model_dump(exclude_none=True),
                "times": self.times,
                "skip": self.skip,
                "fired": self.fired,
                "live": self.live,
                "last": _shown(last) if last else None,
            }


def _shown(firing: Firing) -> dict[str, Any]:
    """A firing for the list: of long lists the first entries alone."""
    detail = {
        name: value[:_SHOWN] if isinstance(value, list) else value
        for name, value in firing.detail.items()
    }
    return {"vm": firing.place.vm, "disk": firing.place.disk, **detail}
