"""`make bench-quick`: full backup and restore of a 1.5 GiB image, beside qemu-img, in minutes.

Ends with 0 when every figure keeps its limit, with 1 when one misses it or a
step failed. Writes bench/results/quick.json and leaves nothing else behind.
"""

import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import Final

from rich.console import Console

from bench.agent_process import SITE
from bench.process_facts import peak_mib
from bench.results import figures, show, write_results
from bench.rounds import BenchmarkFailed, Round, Rounds
from bench.source import Source, make_source
from sendense import Client, SendenseError
from tools.exclusive import AlreadyAtWork, exclusive
from tools.paths import BIN, ROOT
from tools.processes import Program, ProgramFailed

ROUNDS: Final = 5
FOLDER: Final = ROOT / "build" / "bench"
RESULTS: Final = ROOT / "bench" / "results" / "quick.json"
FAILURES: Final = (
    AlreadyAtWork,
    BenchmarkFailed,
    ProgramFailed,
    SendenseError,
    subprocess.SubprocessError,
    OSError,
)


def main() -> int:
    console = Console()
    try:
        # Two at once would measure each other.
        with exclusive(FOLDER.with_suffix(".lock")):
            shutil.rmtree(FOLDER, ignore_errors=True)
            FOLDER.mkdir(parents=True)
            try:
                return _measure(console)
            finally:
                shutil.rmtree(FOLDER, ignore_errors=True)
    except FAILURES as error:
        console.print(f"bench-quick failed: {error}", style="red", markup=False, soft_wrap=True)
        return 1


def _measure(console: Console) -> int:
    source = make_source(FOLDER / "source.raw")
    console.print(
        f"source: {source.capacity_bytes >> 20} MiB, of which {source.nonzero_bytes >> 20} MiB "
        f"are {source.files} files of this system"
    )
    with ExitStack() as stack:
        hub, address = _start_hub(stack)
        client = stack.enter_context(Client(address))
        agent = _start_agent(stack, client, address, source)
        rounds = Rounds(FOLDER, client, source, hub_pid=hub.pid, agent_pid=agent.pid)
        done: list[Round] = []
        for number in range(1, ROUNDS + 1):
            done.append(rounds.run(number))
            _show_round(console, number, done[-1])
        values = figures(
            done, source, hub_peak_mib=peak_mib(hub.pid), agent_peak_mib=peak_mib(agent.pid)
        )
    write_results(RESULTS, values, done, source)
    kept = show(console, values)
    console.print(f"written: {RESULTS.relative_to(ROOT)}")
    return 0 if kept else 1


def _start_hub(stack: ExitStack) -> tuple[Program, str]:
    state, ready = FOLDER / "hub", FOLDER / "hub-ready.json"
    subprocess.run(
        [
            BIN / "sendense-hub",
            *("init", "--state-dir", state, "--repository", FOLDER / "repository"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    hub = Program(
        "sendense-hub",
        *("serve", "--config", state / "hub.toml", "--listen", "127.0.0.1:0"),
        *("--ready-file", ready),
        log=FOLDER / "hub.log",
    )
    stack.callback(hub.stop)
    return hub, hub.await_ready_file(ready)["address"]


def _start_agent(stack: ExitStack, client: Client, address: str, source: Source) -> Program:
    agent = Program(
        "python",
        *("-m", "bench.agent_process", "--hub", address, "--image", source.path),
        log=FOLDER / "agent.log",
    )
    stack.callback(agent.stop)
    # A site is known once its agent has registered, so that it cannot be asked for by name yet.
    agent.await_that(
        "agent connected", lambda: any(vm.site == SITE for vm in client.list_virtual_machines())
    )
    return agent


def _show_round(console: Console, number: int, one: Round) -> None:
    console.print(
        f"round {number}: full {one.full_s:.2f} s, qemu-img {one.qemu_full_s:.2f} s; "
        f"restore {one.restore_s:.2f} s, qemu-img {one.qemu_restore_s:.2f} s; "
        f"CPU hub {one.hub_cpu_s:.2f} s, agent {one.agent_cpu_s:.2f} s",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
