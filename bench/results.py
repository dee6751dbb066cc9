"""From rounds to the six figures, their limits, the table and the file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.machine import machine_facts
from bench.rounds import QEMU_BACKUP, QEMU_RESTORE, Round
from bench.source import Source


@dataclass(frozen=True, slots=True)
class Limit:
    """What a figure may be at most, and where it is to get to."""

    key: str
    meaning: str
    at_most: float
    aim: float | None = None


LIMITS: Final = (
    Limit("full_vs_qemu", "full backup, time", 0.75, 0.60),
    Limit("size_vs_qemu", "layer and manifest, bytes", 1.08),
    Limit("hub_cpu_s_per_gib", "hub, CPU s / GiB of data", 0.70),
    Limit("restore_vs_qemu", "restore to raw, time", 1.3, 1.0),
    Limit("hub_peak_mib", "hub, most memory, MiB", 250),
    Limit("agent_peak_mib", "agent, most memory, MiB", 400),
)

FAIRNESS: Final = (
    "Both sides read the same raw image, zeros written out, from the page cache; every step "
    "begins after sync(2); steps alternate and their order changes every round.",
    "A full backup is timed from StartBackup to the completed job: it includes the session, the "
    "catalog's transactions, gRPC over loopback, digests, and syncing layer and manifest to "
    "stable storage and sealing them. qemu-img's time includes no sync of its image; that alone "
    "is qemu_full_sync_s in the rounds.",
    "A restore is timed in the client: it checks every cluster's and the disk's digest and syncs "
    "the file before it gets its name. qemu-img checks no digests and syncs nothing.",
    "qemu-img's time includes the start of its process, the product's does not: its processes "
    "run already.",
    "Ratios are medians of all rounds divided by each other. Memory peaks are those of the whole "
    "run, restores included; the hub's processor time is that of the backups.",
    "No vSphere, no NFC: the agent's pipeline reads the file.",
)


def figures(
    rounds: Sequence[Round], source: Source, *, hub_peak_mib: float, agent_peak_mib: float
) -> dict[str, float]:
    """The six figures by key, from the medians of the rounds."""

    def middle(field: str) -> float:
        return median(float(getattr(one, field)) for one in rounds)

    return {
        "full_vs_qemu": round(middle("full_s") / middle("qemu_full_s"), 3),
        "size_vs_qemu": round(middle("stored_bytes") / middle("qemu_stored_bytes"), 4),
        "hub_cpu_s_per_gib": round(middle("hub_cpu_s") / (source.nonzero_bytes / 2**30), 3),
        "restore_vs_qemu": round(middle("restore_s") / middle("qemu_restore_s"), 3),
        "hub_peak_mib": round(hub_peak_mib, 1),
        "agent_peak_mib": round(agent_peak_mib, 1),
    }


def write_results(
    path: Path, values: dict[str, float], rounds: Sequence[Round], source: Source
) -> None:
    """The figures first, then what they were made of."""
    document = {
        **values,
        "limits": {limit.key: limit.at_most for limit in LIMITS},
        "source": {
            "capacity_bytes": source.capacity_bytes,
            "nonzero_bytes": source.nonzero_bytes,
            "files": source.files,
        },
        "rounds": [
            {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(one).items()}
            for one in rounds
        ],
        "qemu_img": {"backup": " ".join(QEMU_BACKUP), "restore": " ".join(QEMU_RESTORE)},
        "machine": machine_facts(),
        "fairness": FAIRNESS,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def show(console: Console, values: dict[str, float]) -> bool:
    """Print the figures beside their limits; True when all are kept."""
    table = Table(
        title="Backup and restore; the *_vs_qemu are ratios of medians",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    table.add_column("figure", style="bold")
    table.add_column("what")
    for heading in ("measured", "at most", "aim"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for limit in LIMITS:
        kept = values[limit.key] <= limit.at_most
        table.add_row(
            limit.key,
            limit.meaning,
            f"{values[limit.key]:g}",
            f"{limit.at_most:g}",
            "" if limit.aim is None else f"{limit.aim:g}",
            "[green]pass[/]" if kept else "[red]miss[/]",
        )
    console.print(table)
    return all(values[limit.key] <= limit.at_most for limit in LIMITS)
