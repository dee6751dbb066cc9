"""What every test of this tree can count on."""

import gc
import signal
from collections.abc import Iterator

import pytest

from tests.crash import summary as kills
from tests.mariadb_server import MariadbServer, private_mariadb
from tests.model import summary as lives


def pytest_configure() -> None:
    # A shell's background job ignores SIGINT, and so would every program that a
    # test starts: tests that interrupt one would wait for nothing.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    # Thousands of collected tests live to the end: the collector need not look at
    # them again and again, which took a fifth of the tests' time.
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lives.pytest_terminal_summary(terminalreporter)
    kills.pytest_terminal_summary(terminalreporter)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariadbServer]:
    """The server of this test process: started for the first test that asks for it."""
    with private_mariadb() as server:
        yield server
