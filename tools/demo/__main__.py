"""`python -m tools.demo run|up|down`; run ends with 1 when anything differed or failed."""

import shutil
import signal
import subprocess
import sys
from types import FrameType
from typing import Final, NoReturn

from rich.console import Console

from sendense import SendenseError
from tools.demo.explore import down, up
from tools.demo.run import DemoFailed, run_demo
from tools.exclusive import AlreadyAtWork, exclusive
from tools.paths import ROOT
from tools.processes import ProgramFailed

FOLDER: Final = ROOT / "demo"
# Tables in a log file need not fit a terminal.
WIDTH_OF_LOGS: Final = 110
FAILURES: Final = (
    AlreadyAtWork,
    DemoFailed,
    ProgramFailed,
    SendenseError,
    subprocess.SubprocessError,
    RuntimeError,
    ValueError,
    OSError,
)
USAGE: Final = "usage: python -m tools.demo run|up|down"


def main(arguments: list[str]) -> int:
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH_OF_LOGS
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)  # so that what was started is stopped
    try:
        with exclusive(FOLDER / "lock"):
            return _obey(arguments, console)
    except FAILURES as error:
        console.print(f"demo failed: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted", style="red")
        return 130


def _obey(arguments: list[str], console: Console) -> int:
    match arguments:
        case ["run"]:
            (FOLDER / "summary.json").unlink(missing_ok=True)
            shutil.rmtree(FOLDER / "state", ignore_errors=True)
            (FOLDER / "state").mkdir()
            return 0 if run_demo(FOLDER, FOLDER / "state", console).good else 1
        case ["up"]:
            up(FOLDER / "up", console)
        case ["down"]:
            down(FOLDER / "up", console)
        case _:
            console.print(USAGE, style="red")
            return 2
    return 0


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
