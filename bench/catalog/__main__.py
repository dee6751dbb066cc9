"""`make bench-catalog`: pages, completions and change ids at 1,000,000 disk rows, on both engines.

Ends with 0 when every page keeps the limit, with 1 when one misses it or a step
failed. Writes bench/results/catalog.json, or what --results names, and leaves
nothing else behind.
"""

import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.catalog.engines import ENGINES
from bench.catalog.measured import TINY, Effort, measure_engine
from bench.catalog.report import document, show, within_limits, write
from shared.errors import SendenseError
from tools.exclusive import AlreadyAtWork, exclusive
from tools.paths import ROOT

ROWS: Final = 1_000_000
# With fewer rows nothing is to be learned from many samples.
ROWS_WORTH_MEASURING: Final = 50_000
FOLDER: Final = ROOT / "build" / "bench-catalog"
RESULTS: Final = ROOT / "bench" / "results" / "catalog.json"
# What is no full run does not replace the result of one.
TRIAL_RESULTS: Final = ROOT / "build" / "bench-catalog.json"
FAILURES: Final = (
    AlreadyAtWork,
    SendenseError,
    subprocess.SubprocessError,
    OSError,
    RuntimeError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _asked(arguments)
    console = Console()
    try:
        # Two at once would measure each other.
        with exclusive(asked.folder.with_suffix(".lock")):
            return _measure(asked, console)
    except FAILURES as error:
        console.print(f"bench-catalog failed: {error}", style="red", markup=False, soft_wrap=True)
        return 1


def _measure(asked: Namespace, console: Console) -> int:
    effort = TINY if asked.rows < ROWS_WORTH_MEASURING else Effort()
    engines = {}
    for name in asked.engine or ENGINES:
        folder: Path = asked.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            engines[name] = measure_engine(name, asked.rows, folder, effort, console)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    found = document(asked.rows, engines)
    whole = asked.rows == ROWS and len(engines) == len(ENGINES)
    path: Path = asked.results or (RESULTS if whole else TRIAL_RESULTS)
    write(path, found)
    show(console, found)
    console.print(f"written: {path}", soft_wrap=True)
    return 0 if within_limits(found) else 1


def _asked(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="bench.catalog", description="measure the catalog")
    parser.add_argument("--rows", type=int, default=ROWS, help="disk rows (%(default)s)")
    parser.add_argument(
        "--engine", choices=list(ENGINES), action="append", help="only this one; all by default"
    )
    parser.add_argument("--results", type=Path, help="the file to write")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the catalogs are made")
    asked = parser.parse_args(arguments)
    if asked.rows < 1:
        parser.error("--rows must be at least 1")
    return asked


if __name__ == "__main__":
    sys.exit(main())
