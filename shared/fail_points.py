"""Named places in a program where a test can end it, or hold it.

In a program that nobody armed, `fail_point` does nothing but look at one variable.
Tests arm one through the function of a child process (tests/crash), never through the
environment or a setting: no installation can be made to fail by them.
"""

from collections.abc import Callable
from typing import Final

_NONE: Final[Callable[[str], None] | None] = None
_armed: Callable[[str], None] | None = _NONE


def fail_point(name: str) -> None:
    """The program has come to this point. `name`: program, what it does, what is done: "hub.seal.renamed"."""
    if _armed is not None:
        _armed(name)


def arm(reached: Callable[[str], None]) -> None:
    """Have this called at each point from now on, in the thread that comes to it. For tests."""
    global _armed
    _armed = reached


def disarm() -> None:
    """Undo `arm`."""
    global _armed
    _armed = None
