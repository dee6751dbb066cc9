"""The tests' own MariaDB server: alone, beside others, gone at the end."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from tests import mariadb_server
from tests.mariadb_server import MariadbServer, private_mariadb

# Prints the server's process, then waits until its input ends.
RUN_UNTIL_TOLD = """
import sys
from tests.mariadb_server import private_mariadb
with private_mariadb() as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.mariadb
def test_server_listens_on_no_port(mariadb: MariadbServer) -> None:
    assert mariadb.run("SELECT @@skip_networking, @@port") == ((1, 0),)


@pytest.mark.mariadb
def test_servers_run_beside_one_another_and_end_when_a_test_fails(mariadb: MariadbServer) -> None:
    with pytest.raises(ZeroDivisionError), private_mariadb() as other:
        pid = other.pid
        with other.database() as url:
            name = url.partition("?")[0].rpartition("/")[2]
            assert other.run("SHOW DATABASES LIKE %s", name)
            assert not mariadb.run("SHOW DATABASES LIKE %s", name)
        raise ZeroDivisionError
    assert not _runs(pid)
    assert mariadb.run("SELECT 1") == ((1,),)


@pytest.mark.mariadb
def test_server_ends_with_tests_that_are_killed(mariadb: MariadbServer) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-c", RUN_UNTIL_TOLD],
            cwd=Path(__file__).parents[4],
            env={"TMPDIR": folder, "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as tests,
    ):
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        assert _runs(pid)
        tests.kill()
        tests.wait(10)
        ended = Retrying(
            retry=retry_if_result(bool), stop=stop_after_delay(10), wait=wait_fixed(0.05)
        )
        assert not ended(_runs, pid)


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_missing_server_is_a_failure_in_ci_and_a_named_skip_elsewhere(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(mariadb_server, "SERVER", "mariadbd-of-no-machine")
    with pytest.raises(outcome, match="need mariadbd-of-no-machine"), private_mariadb():
        raise AssertionError("a server that does not exist ran")


def _runs(pid: int) -> bool:
    """Whether the process lives; one that nobody waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
