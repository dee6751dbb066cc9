"""The programs as users run them: a hub and agents as processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hub.cli import init
from sendense import Client
from simulator.site import SimulatedSite

BIN = Path(sys.executable).parent
DEADLINE_S = 30.0
T = TypeVar("T")


def wait_for(
    what: str,
    probe: Callable[[], T | None],
    deadline_s: float = DEADLINE_S,
    *,
    pause_s: float = 0.02,
) -> T:
    """Ask until the answer is truthy. Raises AssertionError naming `what` at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < end, f"{what}: not within {deadline_s} s"
        time.sleep(pause_s)


class Program:
    """One process with its log; ended with the test, whatever happened."""

    def __init__(self, log: Path, *command: str) -> None:
        self.log_path = log
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; returns the exit code. A process that does not end is killed and blamed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.process.args} ignored SIGTERM; log:\n{self.log}") from None
        finally:
            self._log.close()

    def exit_code(self) -> int:
        """Wait for the process to end by itself."""
        return self.process.wait(DEADLINE_S)


class Hub:
    """A hub process over a state folder; stop and start keep the folder and the port.

    Its catalog is the SQLite file there, or the database that `catalog_url` names.
    """

    def __init__(self, folder: Path, catalog_url: str | None = None) -> None:
        self.folder = folder
        self.state = folder / "hub"
        self.repository = self.state / "repository"
        self.program: Program | None = None
        self.address = "127.0.0.1:0"
        # In this process: another start of Python for each hub takes long. The
        # program itself makes the demo's hub.
        init(self.state, self.repository, url=catalog_url)
        self.config = self.state / "hub.toml"

    def start(self) -> None:
        ready = self.folder / "hub-ready.json"
        ready.unlink(missing_ok=True)
        self.program = Program(
            self.folder / "hub.log",
            *("sendense-hub", "serve", "--config", str(self.config)),
            *("--listen", self.address, "--ready-file", str(ready)),
        )
        program = self.program

        def bound() -> str | None:
            assert program.process.poll() is None, f"the hub ended; log:\n{program.log}"
            try:
                return str(json.loads(ready.read_text())["address"])
            except (FileNotFoundError, ValueError):
                return None

        self.address = wait_for("hub ready", bound)

    def stop(self) -> int:
        assert self.program is not None
        return self.program.stop()

    @contextmanager
    def client(self) -> Iterator[Client]:
        with Client(self.address) as client:
            yield client

    def files(self) -> list[str]:
        """Everything in the repository but its own description, relative.

        A job's folder may be removed meanwhile: it is told that the job ended
        before its files go.
        """
        return sorted(
            str(Path(folder, name).relative_to(self.repository))
            for folder, _, names in os.walk(self.repository)
            for name in names
            if name != "sendense-repository.json"
        )


def agent_config(
    folder: Path,
    site: SimulatedSite,
    hub_address: str,
    *,
    name: str,
    password: str | None = None,
    fingerprint: str | None = None,
    transport: str = "nbdssl",
    more: str = "",
) -> Path:
    """Write an agent's configuration for a simulated site."""
    folder.mkdir(parents=True, exist_ok=True)
    password_file = folder / "vsphere-password"
    password_file.write_text((password or site.password) + "\n")
    password_file.chmod(0o600)
    config = folder / "agent.toml"
    config.write_text(
        f"""
site = "{name}"
hub_address = "{hub_address}"
{more}
[vsphere]
address = "{site.address}"
user = "{site.user}"
password_file = "{password_file}"
certificate_sha256 = "{fingerprint or site.certificate_sha256}"
transport = "{transport}"
"""
    )
    return config


class Agent:
    """An agent process of one site."""

    def __init__(self, folder: Path, site: SimulatedSite, hub: Hub, **options: str) -> None:
        self.folder = folder
        self.name = options["name"]
        self._hub = hub
        self.config = agent_config(folder, site, hub.address, **options)
        self.program: Program | None = None

    def start(self, *, connected: bool = True) -> None:
        self.program = Program(
            self.folder / "agent.log", "sendense-agent", "run", "--config", str(self.config)
        )
        if connected:
            self.wait_connected()

    def wait_connected(self) -> None:
        """Wait until the hub has the agent's session and its inventory."""
        program = self.program
        assert program is not None

        def there() -> bool:
            assert program.process.poll() is None, f"the agent ended; log:\n{program.log}"
            with self._hub.client() as client:
                return any(a.site == self.name and a.connected for a in client.list_agents()) and (
                    len(list(client.list_virtual_machines(site=self.name))) > 0
                )

        wait_for(f"agent {self.name} connected", there)

    def wait_reported(self, vm_name: str) -> None:
        """Wait until a running agent has reported a VM that was added meanwhile."""

        def there() -> bool:
            with self._hub.client() as client:
                return bool(client.list_virtual_machines(site=self.name, name=vm_name))

        wait_for(f"VM {vm_name} reported", there)

    def stop(self) -> int:
        assert self.program is not None
        return self.program.stop()
