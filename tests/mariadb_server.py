"""A private MariaDB server for tests: a temporary data folder, a unix socket and no port."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pymysql
import pytest
from sqlalchemy import URL
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

SERVER: Final = "mariadbd"
INSTALL: Final = "mariadb-install-db"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
MEMORY: Final = "/dev/shm"
MEMORY_FREE_BYTES: Final = 4 << 30


class ServerNotReady(Exception):
    """It runs, but does not answer yet."""


class MariadbServer:
    """One server process over a data folder of its own. One thread uses it."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Makes the data folder; nothing runs yet. The folder's path must be short: a
        socket's has room for 107 characters. `options` are more of the server's own."""
        self._folder = folder
        self._options = options
        self._socket = folder / "s"
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [
                _program(INSTALL),
                "--no-defaults",
                f"--datadir={self._data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *_user(),
            ],
            check=True,
            timeout=START_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Run the server and wait until it takes connections."""
        command = [
            _program(SERVER),
            "--no-defaults",
            f"--datadir={self._data}",
            f"--socket={self._socket}",
            f"--pid-file={self._folder / 'pid'}",
            f"--log-error={self._folder / 'log'}",
            # A server that starts removes the temporary tables of all in the same folder.
            f"--tmpdir={self._folder}",
            "--skip-networking",
            "--skip-log-bin",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=32M",
            # Quick: the machine may lose what it has not written, a killed server may not.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            *self._options,
            *_user(),
        ]
        if setpriv := shutil.which("setpriv"):
            # It ends with the tests, also when they are killed.
            command = [setpriv, "--pdeathsig", "KILL", *command]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for attempt in Retrying(
            retry=retry_if_exception_type(ServerNotReady),
            stop=stop_after_delay(START_TIMEOUT_S),
            wait=wait_fixed(0.05),
            reraise=True,
        ):
            with attempt:
                self._require_ready(self._process)

    def stop(self) -> None:
        """Shut it down cleanly. May be called twice."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def url(
        self, database: str, *, user: str = "root", password: str | None = None, **more: str
    ) -> str:
        """The catalog URL of a database; `more` are further parameters."""
        return URL.create(
            "mysql+pymysql",
            username=user,
            password=password,
            host="localhost",
            database=database,
            query={"unix_socket": str(self._socket)} | more,
        ).render_as_string(hide_password=False)

    def run(self, statement: str, *values: object) -> tuple[tuple[Any, ...], ...]:
        """One statement on a connection of its own; the rows it gives."""
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return tuple(cursor.fetchall())

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database that goes at the end."""
        name = f"catalog_{uuid4().hex}"
        self.run(f"CREATE DATABASE `{name}`")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE `{name}`")

    def connection_ids(self, database: str) -> list[int]:
        """The server's connections that use the database."""
        found = self.run("SELECT id FROM information_schema.processlist WHERE db = %s", database)
        return [row[0] for row in found]

    def _connect(self) -> "pymysql.connections.Connection[Any]":
        return pymysql.connect(
            unix_socket=str(self._socket),
            user="root",
            autocommit=True,
            connect_timeout=5,
            read_timeout=STOP_TIMEOUT_S,
            write_timeout=STOP_TIMEOUT_S,
        )

    def _require_ready(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            log = (self._folder / "log").read_text(errors="replace")
            raise AssertionError(f"{SERVER} ended with {process.returncode}:\n{log[-4000:]}")
        try:
            self.run("SELECT 1")
        except pymysql.OperationalError as error:
            raise ServerNotReady(str(error)) from error

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        process.kill()
        process.wait(STOP_TIMEOUT_S)


@contextmanager
def private_mariadb(*options: str) -> Iterator[MariadbServer]:
    """A running server, ended and removed in every case. `options` are its own, at the end.

    Where the programs are missing the test is skipped, or failed when CI=true.
    """
    missing = [name for name in (SERVER, INSTALL) if _found(name) is None]
    if missing:
        told = f"MariaDB tests need {' and '.join(missing)} (package mariadb-server)"
        if os.environ.get("CI") == "true":
            pytest.fail(told, pytrace=False)
        pytest.skip(told)
    with tempfile.TemporaryDirectory(prefix="mariadb-", dir=_fast_folder()) as folder:
        server = MariadbServer(Path(folder), *options)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def _fast_folder() -> str | None:
    """Memory, where there is plenty: a server that is killed loses nothing of it either."""
    try:
        free = shutil.disk_usage(MEMORY).free
    except OSError:
        return None
    return MEMORY if free >= MEMORY_FREE_BYTES and os.access(MEMORY, os.W_OK) else None


def _found(name: str) -> str | None:
    # Not every user's PATH has the folders of servers.
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which(name, path=path)


def _program(name: str) -> str:
    found = _found(name)
    assert found is not None, f"{name} is not installed"
    return found


def _user() -> list[str]:
    """The server refuses to run as root unless told so."""
    return ["--user=root"] if os.geteuid() == 0 else []
