"""The two databases that are measured, each made new and removed with its folder."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import URL, text
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from hub.catalog.engine import Catalog, sqlite_url
from hub.errors import CatalogUnavailable
from tools.paths import system_program

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0
BUFFER_POOL_MIB: Final = 1024
# As a server that must not lose a committed backup is run.
DURABLE: Final = (
    "--innodb-flush-log-at-trx-commit=1",
    f"--innodb-buffer-pool-size={BUFFER_POOL_MIB}M",
    "--innodb-log-file-size=512M",
    "--skip-log-bin",
)


@dataclass(frozen=True, slots=True)
class Engine:
    """One migrated, empty catalog."""

    name: str
    version: str
    settings: dict[str, str]
    catalog: Catalog


@contextmanager
def sqlite(folder: Path) -> Iterator[Engine]:
    """A file in the folder, opened as the hub opens its own."""
    catalog = Catalog(sqlite_url(folder / "catalog.db"))
    try:
        catalog.upgrade()
        yield Engine(
            "sqlite",
            _value(catalog, "SELECT sqlite_version()"),
            {
                "journal_mode": _value(catalog, "PRAGMA journal_mode"),
                "synchronous": {"1": "normal", "2": "full"}[_value(catalog, "PRAGMA synchronous")],
            },
            catalog,
        )
    finally:
        catalog.close()


@contextmanager
def mariadb(folder: Path) -> Iterator[Engine]:
    """A server of its own: its data in the folder, a unix socket, no port."""
    user = ["--user=root"] if os.geteuid() == 0 else []
    data = folder / "data"
    subprocess.run(
        [
            *(system_program("mariadb-install-db"), "--no-defaults", f"--datadir={data}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db", *user),
        ],
        check=True,
        capture_output=True,
        timeout=START_TIMEOUT_S,
    )
    # A socket's path has room for 107 characters.
    with tempfile.TemporaryDirectory(prefix="bench-") as short:
        socket = Path(short) / "s"
        command = [
            *(system_program("mariadbd"), "--no-defaults", f"--datadir={data}"),
            *(f"--socket={socket}", f"--pid-file={folder / 'pid'}", "--skip-networking"),
            *(f"--log-error={folder / 'log'}", f"--tmpdir={folder}", *DURABLE, *user),
        ]
        if setpriv := shutil.which("setpriv"):
            # It ends with the benchmark, also when that is killed.
            command = [setpriv, "--pdeathsig", "KILL", *command]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await(lambda: _create_database(socket))
            catalog = Catalog(_url(socket, "catalog"))
            try:
                catalog.upgrade()
                yield Engine(
                    "mariadb",
                    _value(catalog, "SELECT version()"),
                    {
                        name: _value(catalog, f"SELECT @@{name}")
                        for name in (
                            *("innodb_flush_log_at_trx_commit", "innodb_flush_method"),
                            *("innodb_buffer_pool_size", "innodb_doublewrite"),
                        )
                    },
                    catalog,
                )
            finally:
                catalog.close()
        finally:
            # Nobody wants its data any more.
            process.kill()
            process.wait(STOP_TIMEOUT_S)


ENGINES: Final = {"sqlite": sqlite, "mariadb": mariadb}


def _create_database(socket: Path) -> None:
    server = Catalog(_url(socket, "mysql"))
    try:
        with server.write() as session:
            session.execute(text("CREATE DATABASE IF NOT EXISTS catalog"))
    finally:
        server.close()


def _await(ready: Callable[[], None]) -> None:
    """Try until it is; raises what the last attempt did."""
    for attempt in Retrying(
        retry=retry_if_exception_type(CatalogUnavailable),
        stop=stop_after_delay(START_TIMEOUT_S),
        wait=wait_fixed(0.1),
        reraise=True,
    ):
        with attempt:
            ready()


def _url(socket: Path, database: str) -> str:
    return URL.create(
        "mysql+pymysql",
        username="root",
        host="localhost",
        database=database,
        query={"unix_socket": str(socket)},
    ).render_as_string(hide_password=False)


def _value(catalog: Catalog, question: str) -> str:
    with catalog.read() as session:
        return str(session.scalar(text(question)))
