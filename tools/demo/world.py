"""The demo's three programs: a simulated ESXi site, a hub and an agent, on free ports."""

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from sendense import Client, HubUnavailable
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
        """Let the VM's guest do something to a disk, through the simulator's command."""
        arguments = [change.kind, VM_NAME, str(change.disk), str(change.area.start)]
        if change.content is not None:
            arguments += ["--file", str(change.content)]
        else:
            arguments += [str(change.area.length)]
        _run("sendense-simulator", *arguments, "--control", str(self.control))

    def _start_site(self, stack: ExitStack, disk_0: Path, disk_1: Path) -> dict[str, str]:
        site_file, ready = self.folder / "site.toml", self.folder / "site-ready.json"
        site_file.write_text(_site_toml((disk_0, DISK_0_BYTES), (disk_1, DISK_1_BYTES)))
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
                    return bool(client.list_virtual_machines(site=SITE, name=VM_NAME))
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


def _site_toml(*disks: tuple[Path, int]) -> str:
    """A site with the demo's VM and a second one without much in it."""
    lines = ["[[vm]]", f"name = {json.dumps(VM_NAME)}", 'power_state = "poweredOn"', ""]
    for image, capacity_bytes in disks:
        lines += [
            "[[vm.disk]]",
            f"capacity_bytes = {capacity_bytes}",
            f"image = {json.dumps(str(image))}",
            "",
        ]
    return "\n".join(lines)


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
