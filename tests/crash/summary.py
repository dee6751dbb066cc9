"""What was killed and what came of it, told at the end of a run of the tests.

Named in tests/conftest.py: with xdist the process that tells loads no other one.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest

_COUNT: Final = "crash: "
_MOST: Final = "crash, most: "


class Tally:
    """What the rounds of one test counted."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record
        self._counts: Counter[str] = Counter()
        self._most: Counter[str] = Counter()

    def count(self, name: str, number: int = 1) -> None:
        """Numbers of one name are added up, over all tests."""
        self._counts[name] += number

    def most(self, name: str, number: int) -> None:
        """Of numbers of one name the greatest is told."""
        self._most[name] = max(number, self._most[name])

    def note(self) -> None:
        """Keep it with the test's result."""
        for name, number in self._counts.items():
            self._record(_COUNT + name, number)
        for name, number in self._most.items():
            self._record(_MOST + name, number)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Kills by point, resumes, failed jobs by reason, bytes sent again."""
    counts: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for one in reports:
            if getattr(one, "when", "") != "teardown":  # the others repeat what it says
                continue
            for name, value in getattr(one, "user_properties", ()):
                if name.startswith(_MOST):
                    plain = name.removeprefix(_MOST)
                    most[plain] = max(value, most[plain])
                elif name.startswith(_COUNT):
                    counts[name.removeprefix(_COUNT)] += value
    if not counts and not most:
        return
    terminalreporter.section("kills")
    for name, count in sorted(counts.items()):
        terminalreporter.line(f"{count:12,} {name}")
    for name, count in sorted(most.items()):
        terminalreporter.line(f"{count:12,} at most: {name}")
