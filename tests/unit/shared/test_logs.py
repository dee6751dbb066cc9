"""Log lines: events with fields; never a local variable of a traceback."""

import json
import subprocess
import sys

import pytest

from shared.logs import configure_logging

_PROGRAM = """
import structlog
from shared.logs import configure_logging
configure_logging("info", json_lines={json_lines})
def login(password):
    raise ValueError("refused")
try:
    login("hunter" + "2")
except ValueError:
    structlog.get_logger().exception("login_failed", user="root")
"""


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_logged_exception_shows_no_local_variables(json_lines: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(json_lines=json_lines)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "login_failed" in done.stderr
    assert "ValueError: refused" in done.stderr
    assert "hunter2" not in done.stderr
    if json_lines:
        assert json.loads(done.stderr)["user"] == "root"


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="chatty"):
        configure_logging("chatty")
