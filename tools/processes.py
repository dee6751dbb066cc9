"""Programs of the project as processes: started, awaited, stopped, never left behind by accident."""

import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tools.paths import BIN

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0
LOG_LINES: Final = 15
PR_SET_PDEATHSIG: Final = 1

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


class ProgramFailed(Exception):
    """A program did not start, did not get ready or ended by itself; the text shows its log."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, safe against reuse of its number: `started` is its start time in clock ticks."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The running process of that number; None when there is none (or only its corpse)."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] == "Z" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self

    def stop(self) -> None:
        """SIGTERM, then SIGKILL when that is not obeyed in time; waits for the end."""
        for number, timeout_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 5.0)):
            if not self.alive:
                return
            os.kill(self.pid, number)
            deadline = time.monotonic() + timeout_s
            while self.alive and time.monotonic() < deadline:
                time.sleep(0.02)


class Program:
    """One process of ours with a log file.

    `stays`: it outlives this process, in a session of its own. Otherwise the
    kernel ends it when this process dies, however that happens.
    """

    def __init__(self, name: str, *arguments: str | Path, log: Path, stays: bool = False) -> None:
        self.name = name
        self.log_path = log
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died in between
                os._exit(1)

        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(BIN / name), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                # Ctrl-C of the terminal is for the demo, which then stops them in order.
                start_new_session=True,
                preexec_fn=None if stays else die_with_parent,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def await_that(self, what: str, probe: Callable[[], T | None]) -> T:
        """Ask until the answer is truthy. Raises ProgramFailed at the deadline or when it ended."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (answer := probe()):
            if self.process.poll() is not None:
                raise ProgramFailed(
                    f"{self.name} ended with {self.process.returncode}:\n{self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise ProgramFailed(
                    f"{what}: not within {START_TIMEOUT_S:.0f} s. {self.name} says:\n{self._log_tail()}"
                )
            time.sleep(0.02)
        return answer

    def await_ready_file(self, path: Path) -> dict[str, str]:
        """Wait for the JSON that a server writes when it can be used."""
        return self.await_that(f"{self.name} ready", lambda: _read_json(path))

    def stop(self) -> None:
        """End it; may be called twice."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LOG_LINES:])


def _read_json(path: Path) -> dict[str, str] | None:
    try:
        content: dict[str, str] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None  # not there, or not yet whole
    return content
