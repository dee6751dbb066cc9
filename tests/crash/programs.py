"""What the processes of tests/crash run: the programs' own entry functions, tied to strings.

They are forked from a process that has imported this module, and with it the programs.
"""

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import hub.main
from agent.config import AgentSettings
from agent.main import run_agent
from agent.vsphere.settings import VsphereSettings
from hub.config import HubSettings
from hub.jobs.parts import Parts
from shared.logs import configure_logging
from tests.crash.fail_points import Strings, Trap, set_constant


class WrongClock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self._offset = timedelta()

    def set(self, offset_s: float) -> None:
        self._offset = timedelta(seconds=offset_s)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset


def run_hub(
    pipe: Connection,
    traps: Sequence[Trap],
    log: Path,
    settings: HubSettings,
    ready: Path,
    constants: Mapping[str, object],
) -> None:
    """A hub."""
    clock = WrongClock()
    _begin(log, settings.log_level, constants)
    set_constant("hub.main.Parts", partial(Parts, now=clock.now))
    Strings(pipe, traps, clock.set).tie()
    hub.main.serve(settings, ready)
    hub.main.leave(0)


def run_agent_of_site(
    pipe: Connection,
    traps: Sequence[Trap],
    log: Path,
    settings: AgentSettings,
    vsphere: VsphereSettings,
    constants: Mapping[str, object],
) -> None:
    """An agent, as `sendense-agent run` runs it."""
    _begin(log, settings.log_level, constants)
    Strings(pipe, traps, lambda _: None).tie()
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if not run_agent(settings, vsphere, stopping):
        sys.exit(1)


def _begin(log: Path, level: str, constants: Mapping[str, object]) -> None:
    """`constants`: other values for those of modules, by "<module>.<name>"."""
    for constant, value in constants.items():
        set_constant(constant, value)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    configure_logging(level, json_lines=True)
