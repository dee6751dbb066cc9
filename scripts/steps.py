"""How the set-up scripts run commands, wait for each other and tell what they do.

Standard library only, Python 3.11.
"""

import fcntl
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
LOG = ROOT / "build" / "setup.log"
LOCK = ROOT / "build" / "setup.lock"

LOCK_TIMEOUT_S = 1800
STEP_TIMEOUT_S = 1800
ERROR_LINES = 25


class StepFailed(Exception):
    """A command of the set-up failed; the text shows the end of its output."""


def run(
    what: str,
    command: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
) -> None:
    """Run a command with its output in the log. Raises StepFailed with the output's end."""
    with LOG.open("a+", errors="replace") as log:
        log.write(f"\n== {time.strftime('%F %T')} {' '.join(map(str, command))}\n")
        log.flush()
        began_at = log.tell()
        try:
            status = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=STEP_TIMEOUT_S,
            ).returncode
            problem = f"exit status {status}"
        except subprocess.TimeoutExpired:
            status, problem = 1, f"no end after {STEP_TIMEOUT_S} s"
        except OSError as error:
            status, problem = 1, str(error)
        if status == 0:
            return
        log.seek(began_at)
        tail = "".join(deque(log, maxlen=ERROR_LINES))
    raise StepFailed(
        f"{what} failed ({problem}). The end of its output:\n\n{tail}\nAll of it: {LOG}"
    )


@contextmanager
def lock() -> Iterator[None]:
    """Hold the setup lock, so that two makes at once do not install over each other."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as file:
        give_up_at = time.monotonic() + LOCK_TIMEOUT_S
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    fail(f"another setup has held {LOCK} for {LOCK_TIMEOUT_S} s")
                if not told:
                    say("setup: waiting for another setup in this folder")
                    told = True
                time.sleep(0.2)
        yield


def say(text: str) -> None:
    print(text, flush=True)


def fail(text: str) -> NoReturn:
    print(f"setup: {text}", file=sys.stderr, flush=True)
    raise SystemExit(1)
