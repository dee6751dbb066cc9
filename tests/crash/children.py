"""The test's side of its programs: start them, arm their fail points, kill, stop and hold them."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

from tests.crash.fail_points import Arm, Obeyed, Reached, SetClock, SetConstant, Trap
from tests.end_to_end.processes import wait_for

STOP_S: Final = 10.0
REACHED_S: Final = 30.0
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.crash.programs"])


class Child:
    """One program over its lives; `arguments` are what its function takes behind the log."""

    def __init__(self, name: str, run: Callable[..., None], log: Path) -> None:
        self.name = name
        self.log_path = log
        self._run = run
        self._process: ForkServerProcess | None = None
        self._pipe: Connection | None = None
        self._reached: list[str] = []
        self.deaths = 0  # by SIGKILL

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int:
        assert self._process is not None and self._process.pid is not None
        return self._process.pid

    def status(self, name: str) -> str:
        """What the system tells of its process: "State", "VmHWM", ..."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(one.partition(":")[2].strip() for one in lines if one.startswith(f"{name}:"))

    @property
    def cpu_ticks(self) -> int:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        return sum(map(int, fields.split()[11:13]))

    def start(self, arguments: tuple[Any, ...], traps: tuple[Trap, ...]) -> None:
        """Begin a life; the traps stand before the program does anything."""
        assert not self.alive, f"{self.name} runs already"
        ours, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=self._run, args=(theirs, traps, self.log_path, *arguments), daemon=True
        )
        self._process.start()
        theirs.close()
        self._pipe = ours
        if traps:
            self._reached = []

    def arm(self, *traps: Trap) -> None:
        """These traps from now on, in place of all others; whoever is held goes on."""
        self._hear()
        self._reached = []
        self._order(Arm(traps))

    def release(self) -> None:
        """No traps any more."""
        self.arm()

    def set_clock(self, offset_s: float) -> None:
        """The wall clock is wrong by so much from now on."""
        self._order(SetClock(offset_s))

    def set_constant(self, constant: str, value: object) -> None:
        """A constant of a module is another from now on; "<module>.<name>"."""
        self._order(SetConstant(constant, value))

    def has_reached(self, point: str) -> bool:
        """Whether a trap's point was come to since the traps were armed."""
        self._hear()
        return point in self._reached

    def wait_reached(self, point: str, deadline_s: float = REACHED_S) -> None:
        """Raises AssertionError when the program does not come there, or ends before."""

        def there() -> bool:
            if self.has_reached(point):
                return True
            assert self.alive, f"{self.name} has ended before {point}\n{self.tail()}"
            return False

        wait_for(f"{self.name} at {point}\n", there, deadline_s)

    def wait_killed(self, deadline_s: float = REACHED_S) -> None:
        """Wait until a trap, or `kill`, has killed it."""
        assert self._process is not None
        self._process.join(deadline_s)
        assert self._process.exitcode == -signal.SIGKILL, (
            f"{self.name}: exit code {self._process.exitcode}\n{self.tail()}"
        )
        self._hear()
        self.deaths += 1

    def kill(self) -> None:
        """As a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait_killed()

    def hold(self) -> None:
        """SIGSTOP: it stands still, its connections stay."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self, deadline_s: float = STOP_S) -> int:
        """SIGTERM; the exit code. Raises AssertionError when it does not end in time."""
        assert self._process is not None
        self._process.terminate()
        self._process.join(deadline_s)
        assert not self._process.is_alive(), f"{self.name} does not stop\n{self.tail()}"
        assert self._process.exitcode is not None
        return self._process.exitcode

    def end(self) -> None:
        """However it is: it is gone afterwards."""
        if self._process is not None:
            self._process.kill()
            self._process.join(STOP_S)
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.splitlines()[-lines:])

    def _order(self, order: object) -> None:
        assert self._pipe is not None
        self._pipe.send(order)
        while True:
            assert self._pipe.poll(REACHED_S), f"{self.name} does not obey\n{self.tail()}"
            said = self._pipe.recv()
            if isinstance(said, Obeyed):
                return
            self._take(said)

    def _hear(self) -> None:
        assert self._pipe is not None
        try:
            while self._pipe.poll():
                self._take(self._pipe.recv())
        except (EOFError, OSError):
            return  # it is dead, and has said all

    def _take(self, said: object) -> None:
        assert isinstance(said, Reached)
        self._reached.append(said.point)


def unchanged(number: Callable[[], int], looks: int = 40) -> Callable[[], bool]:
    """A probe to be asked again and again: the number has been the same for so many looks."""
    last, same = -1, 0

    def probe() -> bool:
        nonlocal last, same
        now = number()
        last, same = now, same + 1 if now == last else 0
        return same >= looks

    return probe
