"""The result file of the catalog's benchmark, and the table on the screen."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.catalog.engines import BUFFER_POOL_MIB
from bench.machine import hardware_facts

# Of the slowest list, with whatever filters, anywhere in it.
PAGE_P99_MS_AT_MOST: Final = 50.0

NOTES: Final = (
    "Rows are inserted in bulk, oldest first, with all constraints and indexes in place: one "
    "backup a day of each VM, some VMs of one name every hour, seven in a hundred without success. "
    "Statistics of the planner are what the engine makes by itself; ANALYZE was not run.",
    "A page is timed from the begin of its transaction to the answer's bytes: the rule, its "
    "queries, the rows as objects and as a message; not gRPC itself. It has 100 rows, if as many "
    "fit. Values of filters are drawn anew for every sample. Deep pages begin at a time or "
    "run that is drawn from the middle of the history.",
    "longest_pages have 1,000 rows, the most that a caller can ask for. No limit applies to them: "
    "what they cost is the rows themselves.",
    "Percentiles are by nearest rank, of the samples of one list with one set of filters; two "
    "calls before them are not counted, in which statements are compiled.",
    "Completions are the transaction that makes a job a restore point, with its commit on stable "
    "storage; its jobs were started, opened and sealed by the catalog's rules before. They are "
    "of different VMs. Writers are threads of one process, as in the hub.",
    "SQLite is a file with a write-ahead log and synchronous=FULL, as the hub opens it. MariaDB "
    "is a server on the same machine, over a unix socket, without binary log, with a buffer pool "
    f"of {BUFFER_POOL_MIB} MiB and innodb_flush_log_at_trx_commit=1.",
)


def document(rows: int, engines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The figures first, then what they were made of."""
    return {
        "disk_rows": rows,
        "page_p99_ms": {name: worst_page(one)["p99_ms"] for name, one in engines.items()},
        "page_p50_ms": {
            name: max(page["p50_ms"] for page in one["pages"]) for name, one in engines.items()
        },
        "change_id_p99_ms": {name: one["change_id"]["p99_ms"] for name, one in engines.items()},
        "completions_per_second": {
            name: {str(run["writers"]): run["per_second"] for run in one["completions"].values()}
            for name, one in engines.items()
        },
        "limits": {"page_p99_ms": PAGE_P99_MS_AT_MOST},
        "engines": engines,
        "machine": hardware_facts(),
        "notes": NOTES,
    }


def worst_page(engine: Mapping[str, Any]) -> Mapping[str, Any]:
    """The list whose 99th percentile is the highest."""
    worst: Mapping[str, Any] = max(engine["pages"], key=lambda page: page["p99_ms"])
    return worst


def within_limits(found: Mapping[str, Any]) -> bool:
    """Whether every page of every engine came in time."""
    return all(value <= found["limits"]["page_p99_ms"] for value in found["page_p99_ms"].values())


def write(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Print the figures of the engines side by side."""
    engines = found["engines"]
    table = Table(
        title=f"The catalog with {found['disk_rows']:,} disk rows",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    table.add_column("figure", style="bold")
    for name in engines:
        table.add_column(name, justify="right")
    table.add_column("at most", justify="right")
    limit = found["limits"]["page_p99_ms"]

    def line(figure: str, values: list[str], at_most: str = "") -> None:
        table.add_row(figure, *values, at_most)

    def told(value: float) -> str:
        return f"[{'green' if value <= limit else 'red'}]{value:g}[/]"

    line(
        "page, worst p99, ms",
        [told(found["page_p99_ms"][name]) for name in engines],
        f"{limit:g}",
    )
    line("page, worst p50, ms", [f"{found['page_p50_ms'][name]:g}" for name in engines])
    line("change id, p99, ms", [f"{found['change_id_p99_ms'][name]:g}" for name in engines])
    for key in ("all_repositories", "one_repository"):
        line(
            f"statistics of 30 days, {key.replace('_', ' ')}, p50, ms",
            [f"{one['statistics_30_days'][key]['p50_ms']:g}" for one in engines.values()],
        )
    for run in ("one_writer", "concurrent_writers"):
        writers = {str(one["completions"][run]["writers"]) for one in engines.values()}
        line(
            f"completions a second, writers: {', '.join(sorted(writers))}",
            [f"{one['completions'][run]['per_second']:g}" for one in engines.values()],
        )
    console.print(table)
    for name, one in engines.items():
        page = worst_page(one)
        console.print(
            f"{name}: the slowest page is of {page['list']}, filters {page['filters']}, "
            f"{page['position']}",
            highlight=False,
            soft_wrap=True,
        )
