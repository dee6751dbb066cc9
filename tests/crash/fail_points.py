"""The child's side of a test's strings: what happens when its program comes to a named point."""

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

from shared import fail_points


@dataclass(frozen=True)
class Trap:
    """At the nth arrival at a point the program kills itself, or is held there until told."""

    point: str
    nth: int = 1
    does: Literal["kill", "hold"] = "kill"


@dataclass(frozen=True)
class Arm:
    """These traps instead of all others; arrivals are counted anew. Who is held goes on."""

    traps: tuple[Trap, ...]


@dataclass(frozen=True)
class SetClock:
    """The program's wall clock goes wrong by so much from now on."""

    offset_s: float


@dataclass(frozen=True)
class SetConstant:
    """A constant of a module is another from now on; "<module>.<name>"."""

    constant: str
    value: object


@dataclass(frozen=True)
class Reached:
    """The child says: a trap's point was come to."""

    point: str


@dataclass(frozen=True)
class Obeyed:
    """The child says: the last order is in force."""


class Strings:
    """Obeys the orders that come through a pipe; `arrived` is called by every thread of the program."""

    def __init__(
        self, pipe: Connection, traps: Sequence[Trap], set_clock: Callable[[float], None]
    ) -> None:
        self._pipe = pipe
        self._set_clock = set_clock
        self._changed = threading.Condition()  # guards what follows, and sending
        self._traps = tuple(traps)
        self._arrivals: Counter[str] = Counter()
        self._orders = 0

    def tie(self) -> None:
        """From now on."""
        fail_points.arm(self.arrived)
        threading.Thread(target=self._obey, name="strings", daemon=True).start()

    def arrived(self, point: str) -> None:
        """The program's thread has come to a point."""
        with self._changed:
            self._arrivals[point] += 1
            here = [
                trap
                for trap in self._traps
                if trap.point == point
                and (
                    trap.nth == self._arrivals[point]
                    # Whoever comes after the one that is held is held as well.
                    or (trap.does == "hold" and self._arrivals[point] > trap.nth)
                )
            ]
            if not here:
                return
            self._pipe.send(Reached(point))
            if here[0].does == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            orders = self._orders
            self._changed.wait_for(lambda: self._orders != orders)

    def _obey(self) -> None:
        while True:
            try:
                order = self._pipe.recv()
            except (EOFError, OSError):
                return  # the test has ended
            with self._changed:
                if isinstance(order, Arm):
                    self._traps = order.traps
                    self._arrivals.clear()
                    self._orders += 1
                    self._changed.notify_all()
                elif isinstance(order, SetClock):
                    self._set_clock(order.offset_s)
                elif isinstance(order, SetConstant):
                    set_constant(order.constant, order.value)
                self._pipe.send(Obeyed())


def set_constant(constant: str, value: object) -> None:
    """In this process, of a module that is loaded."""
    module, _, name = constant.rpartition(".")
    assert hasattr(sys.modules[module], name), constant
    setattr(sys.modules[module], name, value)
