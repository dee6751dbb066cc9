"""Goes through a page step by step, as its reader would, and notes where it is wrong."""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.api_page.check import Outcome, kept_value, outcome_problems
from tests.api_page.page import Call, Command, Direction, Keep, Page
from tests.api_page.shapes import Problem

COMMAND_TIMEOUT_S: Final = 60


class Shell:
    """Runs the page's blocks with `sh`; `programs` are the folders that the page's programs are in."""

    def __init__(self, folder: Path, programs: list[Path], given: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {
            **os.environ,
            **given,
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
        }

    def __call__(self, command: str, kept: Mapping[str, str]) -> Outcome:
        done = subprocess.run(
            # A variable without a value is a mistake of the page.
            ["sh", "-eu", "-c", command],
            cwd=self._folder,
            env={**self._environment, **kept},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


def walk(
    page: Page,
    shell: Callable[[str, Mapping[str, str]], Outcome],
    direct: Callable[[str], None],
) -> tuple[list[Problem], list[Outcome]]:
    """The problems in the order of the page, and the outcome of each call.

    `shell` runs a block with the values that were kept so far, `direct` does what a
    direction says.
    """
    problems: list[Problem] = []
    outcomes: list[Outcome] = []
    kept: dict[str, str] = {}
    for step in page.steps:
        match step:
            case Call():
                outcomes.append(shell(step.command.text, kept))
                problems += outcome_problems(step, outcomes[-1])
            case Keep():
                value = kept_value(step, outcomes[-1].stdout)
                if value is None:
                    problems.append(Problem(step.line, f"no {'.'.join(step.path)} to keep"))
                else:
                    kept[step.name] = value
            case Command():
                done = shell(step.command.text, kept)
                if done.exit_code != 0:
                    told = (done.stderr or done.stdout).strip()
                    problems.append(
                        Problem(step.command.line, f"ended with {done.exit_code}: {told}")
                    )
            case Direction():
                direct(step.words)
            case _:
                pass
    return problems, outcomes
