"""What every test of this tree can count on."""

import signal


def pytest_configure() -> None:
    # A shell's background job ignores SIGINT, and so would every program that a
    # test starts: tests that interrupt one would wait for nothing.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
