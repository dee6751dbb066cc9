"""Everything that is measured of one engine."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bench.catalog.completions import WRITERS, Completions
from bench.catalog.engines import ENGINES
from bench.catalog.fill import fill
from bench.catalog.latency import measure
from bench.catalog.lists import Case, Lists
from bench.catalog.lookups import change_ids, statistics
from hub.garbage import exempt_what_is_there


@dataclass(frozen=True, slots=True)
class Effort:
    """How often each thing is measured."""

    page_samples: int = 100
    lookup_samples: int = 500
    statistics_samples: int = 15
    completions: int = 300


TINY: Final = Effort(
    page_samples=2, lookup_samples=5, statistics_samples=2, completions=2 * WRITERS
)


def measure_engine(
    name: str, rows: int, folder: Path, effort: Effort, console: Console
) -> dict[str, Any]:
    """Fill a catalog of the engine and measure it; the engine's part of the result file."""
    with ENGINES[name](folder) as engine:
        begin = time.perf_counter()
        with console.status(f"{name}: inserting") as status:
            filled = fill(engine, rows, folder, lambda n: status.update(f"{name}: {n:,} disk rows"))
        fill_s = time.perf_counter() - begin
        console.print(f"{name} {engine.version}: {filled.disks:,} disk rows in {fill_s:.0f} s")
        # As a hub does when it has started.
        exempt_what_is_there()
        lists = Lists(engine.catalog, filled)
        pages = _pages(lists.pages(), effort.page_samples)
        console.print(f"{name}: {len(pages)} lists measured")
        longest = _pages(lists.longest_pages(), effort.page_samples)
        found = change_ids(engine.catalog, filled, effort.lookup_samples)
        counted = statistics(engine.catalog, filled, effort.statistics_samples)
        completions = Completions(engine.catalog, filled)
        one = completions.run(effort.completions, writers=1)
        many = completions.run(effort.completions, writers=WRITERS)
        console.print(f"{name}: {one.jobs + many.jobs} jobs completed")
        return {
            "version": engine.version,
            "settings": engine.settings,
            "rows": {
                "contexts": len(filled.estate.machines),
                "jobs": filled.jobs,
                "disks": filled.disks,
                "repositories": len(filled.estate.repositories),
                "sites": len(filled.estate.sites),
            },
            "fill_s": round(fill_s, 1),
            "completions": {"one_writer": one.figures(), "concurrent_writers": many.figures()},
            "change_id": found.figures(),
            "statistics_30_days": {key: value.figures() for key, value in counted.items()},
            "pages": pages,
            "longest_pages": longest,
        }


def _pages(cases: Iterable[Case], samples: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for case in cases:
        latency, rows = measure(case.call, samples)
        found.append(
            {
                "list": case.name,
                "filters": case.filters,
                "position": case.position,
                "mean_rows": round(rows, 1),
                **latency.figures(),
            }
        )
    return found
