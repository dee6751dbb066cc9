"""`make demo-up` and `make demo-down`: the demo's programs left running for exploring."""

import json
import shutil
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from tools.demo.guest import Guest
from tools.demo.report import show_commands_for_hub
from tools.demo.world import World
from tools.processes import ProcessId


def up(state: Path, console: Console) -> None:
    """Start the three programs unless they run; print what to do with them."""
    record = state / "running.json"
    running = _running(record)
    if running and all(process.alive for process in running):
        facts = json.loads(record.read_text())
        console.print("already running; try:")
        show_commands_for_hub(console, facts["hub"], Path(facts["control"]))
        return
    _stop(state)
    shutil.rmtree(state, ignore_errors=True)
    world = World(state, stays=True)
    guest = Guest(state / "guest", world.apply)
    console.print(guest.make_disks())
    with ExitStack() as stack:
        world.start(stack, guest.disk_0, guest.disk_1)
        processes = [ProcessId.of(program.pid) for program in world.programs]
        record.write_text(
            json.dumps(
                {
                    "hub": world.hub_address,
                    "control": str(world.control),
                    "processes": [asdict(process) for process in processes if process],
                }
            )
        )
        stack.pop_all()  # all three stand: leave them
    console.print(f"simulated site, hub at {world.hub_address} and agent are running; try:")
    show_commands_for_hub(console, world.hub_address, world.control)


def down(state: Path, console: Console) -> None:
    """Stop what `up` started, the agent first, and remove the VM's disks; nothing to do is fine."""
    if _stop(state):
        console.print(
            f"stopped; hub state, repository and logs are left in {state} "
            "until the next demo-up, which starts anew",
            soft_wrap=True,
        )
    else:
        console.print("nothing is running")


def _stop(state: Path) -> bool:
    """False when there was nothing to stop."""
    record = state / "running.json"
    if not record.exists():
        return False
    for process in reversed(_running(record)):
        process.stop()
    record.unlink()
    for bulky in (state / "guest", state / "site"):
        shutil.rmtree(bulky, ignore_errors=True)
    return True


def _running(record: Path) -> list[ProcessId]:
    try:
        return [ProcessId(**entry) for entry in json.loads(record.read_text())["processes"]]
    except FileNotFoundError:
        return []
