"""What the random lives of VMs met, told at the end of a run.

Named in tests/conftest.py: with xdist the process that tells loads no other one.
"""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:  # the telling process does without the product
    from tests.model.machine import HostileSite

_COUNT: Final = "lives: "
_SURVIVOR: Final = "lie survived: "


def note(machine: "type[HostileSite]", record: Callable[[str, object], None]) -> None:
    """Keep what a test's lives met with its result."""
    record(f"{_COUNT}backups compared", machine.backups)
    record(f"{_COUNT}backups that found changes tracking had left out", machine.caught)
    for name, fired in machine.fired.items():
        record(f"{_COUNT}backups under {name}", fired)
    for number, survivor in enumerate(machine.survivors):
        record(f"{_SURVIVOR}{number}", str(survivor))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many backups were compared, which faults hit them, which lies survived and how likely."""
    counts: Counter[str] = Counter()
    survivors: list[str] = []
    for reports in terminalreporter.stats.values():
        for one in reports:
            if getattr(one, "when", "") != "call":  # later reports repeat what it says
                continue
            for name, value in getattr(one, "user_properties", ()):
                if name.startswith(_SURVIVOR):
                    survivors.append(value)
                elif name.startswith(_COUNT):
                    counts[name.removeprefix(_COUNT)] += value
    if not counts:
        return
    terminalreporter.section("random lives of VMs")
    for name, count in sorted(counts.items()):
        terminalreporter.line(f"{count:6} {name}")
    for survivor in survivors:
        terminalreporter.line(f"a lie survived in {survivor}")
