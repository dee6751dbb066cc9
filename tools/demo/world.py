"""The demo's three programs: a simulated ESXi site, a hub and an agent, on free ports."""

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from sendense import Client, HubUnavailable
from simulator.control_client import ControlError, ask
from tools.demo.guest import DISK_0_BYTES, DISK_1_BYTES, VM_NAME, Change
from tools.paths import BIN
from tools.processes import Program, ProgramFailed

SITE: Final = "demo"
COMMAND_TIMEOUT_S: Final = 60


class World:
    """Starts the programs one after the other; `folder` gets all their state and logs.

    `stays`: they outlive this process. Otherwise the stack that `start` gets
    stops them, the last one first.
    """

    def __init__(self, folder: Path, *, stays: bool = False) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.hub_address = ""
        self.hub_config = folder / "hub" / "hub.toml"
        self.agent_config = folder / "agent.toml"
        self.control = Path()
        self.programs: list[Program] = []
        self._stays = stays

    def start(self, stack: ExitStack, disk_0: Path, disk_1: Path) -> None:
        """Start all three and wait until the hub knows the VM. Raises ProgramFailed."""
        (self.folder / "logs").mkdir(parents=True)
        site = self._start_site(stack, disk_0, disk_1)
        self._start_hub(stack)
        self._start_agent(stack, site)

    def recorded(self, job_id: str, disk_key: int) -> Path:
        """What the simulator kept of a disk at a job's snapshot: a sparse raw file."""
        return self.folder / "site" / "recorded" / f"sendense-{job_id}" / f"disk-{disk_key}.raw"

    def apply(self, change: Change) -> None:
        """Let the VM's guest do something to a disk, as the command `sendense-simulator` would.

        Through the control socket itself: two dozen starts of a program would take longer
        than the backups.
        """
        request: dict[str, object] = {
            "command": change.kind,
            "vm": VM_NAME,
            "disk": change.disk,
            "offset": change.area.start,
        }
        if change.content is not None:
            request["file"] = str(change.content.resolve())
        else:
            request["length"] = change.area.length
        try:
            ask(self.control, request)
        except ControlError as error:
            raise ProgramFailed(f"the simulator refuses {change}: {error}") from error

    def _start_site(self, stack: ExitStack, disk_0: Path, disk_1: Path) -> dict[str, str]:
        site_file, ready = self.folder / "site.toml", self.folder / "site-ready.json"
        site_file.write_text(_site_toml(disk_0, disk_1))
        site = self._start(
            stack,
            "sendense-simulator",
            *("run", "--state-dir", self.folder / "site", "--site", site_file),
            *("--listen", "127.0.0.2", "--port", "0", "--nfc-port", "0"),
            *("--ready-file", ready, "--record-snapshots"),
        )
        answer = site.await_ready_file(ready)
        self.control = Path(answer["control"])
        return answer

    def _start_hub(self, stack: ExitStack) -> None:
        ready = self.folder / "hub-ready.json"
        state = self.hub_config.parent
        _run(
            "sendense-hub",
            *("init", "--state-dir", str(state), "--repository", str(self.repository)),
        )
        hub = self._start(
            stack,
            "sendense-hub",
            *("serve", "--config", self.hub_config, "--listen", "127.0.0.1:0"),
            *("--ready-file", ready),
        )
        self.hub_address = hub.await_ready_file(ready)["address"]

    def _start_agent(self, stack: ExitStack, site: dict[str, str]) -> None:
        self.agent_config.write_text(
            f"site = {json.dumps(SITE)}\n"
            f"hub_address = {json.dumps(self.hub_address)}\n"
            "\n[vsphere]\n"
            f"address = {json.dumps(site['address'])}\n"
            f"user = {json.dumps(site['user'])}\n"
            f"password_file = {json.dumps(site['password_file'])}\n"
            f"certificate_sha256 = {json.dumps(site['certificate_sha256'])}\n"
        )
        agent = self._start(stack, "sendense-agent", "run", "--config", self.agent_config)
        with Client(self.hub_address) as client:

            def knows_the_vm() -> bool:
                try:
                    # Not by site: one whose agent has not registered yet is unknown.
                    machines = client.list_virtual_machines(name=VM_NAME)
                    return any(machine.site == SITE for machine in machines)
                except HubUnavailable as error:
                    raise ProgramFailed(
                        f"the hub went away while the agent connected: {error}"
                    ) from error

            agent.await_that("the agent's inventory at the hub", knows_the_vm)

    def _start(self, stack: ExitStack, name: str, *arguments: str | Path) -> Program:
        log = self.folder / "logs" / f"{name}.log"
        program = Program(name, *arguments, log=log, stays=self._stays)
        stack.callback(program.stop)
        self.programs.append(program)
        return program


def _site_toml(disk_0: Path, disk_1: Path) -> str:
    """The demo's VM, and neighbours for those who explore: a second controller, an independent disk."""
    return f"""\
[[vm]]
name = {json.dumps(VM_NAME)}

[[vm.disk]]
capacity = {DISK_0_BYTES}
image = {json.dumps(str(disk_0))}

[[vm.disk]]
capacity = {DISK_1_BYTES}
image = {json.dumps(str(disk_1))}

[[vm]]
name = "web-frontend"

[[vm.disk]]
capacity = "16 GiB"

[[vm.disk]]
capacity = "8 GiB"
controller = 1

[[vm]]
name = "Build Server (old)"
power_state = "poweredOff"

[[vm.disk]]
capacity = "20 GiB"

[[vm.disk]]
capacity = "4 GiB"
mode = "independent_persistent"
"""


def _run(name: str, *arguments: str) -> None:
    """Run one of our commands to its end. Raises ProgramFailed with what it said."""
    command: Sequence[str] = [str(BIN / name), *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"NO_COLOR": "1"},
        timeout=COMMAND_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise ProgramFailed(
            f"{name} {arguments[0]} ended with {done.returncode}: {done.stderr.strip()}"
        )
