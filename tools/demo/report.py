"""What the demo prints: the catalog as three tables, and commands to try next."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sendense import Backup, BackupContext, BackupDisk
from sendense.cli import text

BYTES: Final = (">read", ">sent", ">stored")
DISK_ROW: Final = "  {:<6}{:<6}{:<13}{:>10}{:>10}{:>10}  {}"


def show_catalog(
    console: Console, contexts: Sequence[BackupContext], jobs: Sequence[Backup]
) -> None:
    """The tables `vm_backup_contexts`, `backup_jobs` and `backup_disks`, as the API tells them."""
    headings = ("context", "VM", "site", "repository", "backups", "last backup")
    table = _table("vm_backup_contexts", *headings)
    for context in contexts:
        table.add_row(
            context.context_id,
            context.vm_name,
            context.site,
            context.repository_name,
            f"{context.successful_backups} of {context.total_backups_run}",
            context.last_backup_id,
        )
    console.print(table)

    table = _table("backup_jobs", "job", "type", "status", *BYTES, "completed at")
    for job in jobs:
        table.add_row(
            job.job_id,
            text.backup_type(job.backup_type),
            text.status(job.status),
            *_bytes(job),
            text.when(job.completed_at),
        )
    console.print(table)
    _show_disks(console, jobs)


def _show_disks(console: Console, jobs: Sequence[Backup]) -> None:
    """Change ids and paths are too long for columns: each disk has them on lines of their own."""
    console.print("backup_disks", style="bold")
    header = DISK_ROW.format("disk", "key", "type", *(h.strip(">") for h in BYTES), "completed at")
    console.print(Text(header, style="bold"))
    for job in jobs:
        console.print(Text(f"  {job.job_id}", style="cyan"))
        for disk in job.disks:
            row = DISK_ROW.format(
                disk.disk_index,
                disk.vmware_disk_key,
                text.backup_type(disk.backup_type),
                *_bytes(disk),
                text.when(disk.completed_at),
            )
            console.print(Text(row), soft_wrap=True)
            for name, value in (("change id", disk.disk_change_id), ("layer", disk.qcow2_path)):
                console.print(Text(f"        {name:<10}{value}", style="dim"), soft_wrap=True)


def show_commands_for_layers(console: Console, layer: Path) -> None:
    """What to do with the stopped demo's files."""
    console.print("\nThe layers are plain QCOW2; stock tools open any restore point:")
    _commands(
        console,
        f"qemu-img info --backing-chain {layer}",
        f"qemu-img convert -O raw {layer} /tmp/pgtest1-disk-0.raw",
    )
    console.print("To explore a running site, hub and agent:")
    _commands(console, "make demo-up")


def show_commands_for_hub(console: Console, address: str, control: Path) -> None:
    """What to do with the running demo."""
    _commands(
        console,
        f"export SENDENSE_HUB={address} SENDENSE_SIMULATOR_CONTROL={control}",
        ".venv/bin/sendense vm list",
        ".venv/bin/sendense backup start pgtest1 --wait",
        ".venv/bin/sendense-simulator write pgtest1 1 --offset '3 GiB' --random '8 MiB'",
        ".venv/bin/sendense backup start pgtest1 --wait",
        ".venv/bin/sendense job list",
        ".venv/bin/sendense restore JOB 1 --output /tmp/pgtest1-disk-1.raw",
        "make demo-down",
    )


def _commands(console: Console, *commands: str) -> None:
    for command in commands:
        # Not wrapped: a command is there to be copied.
        console.print(f"  {command}", style="bold", markup=False, highlight=False, soft_wrap=True)


def _bytes(of: Backup | BackupDisk) -> tuple[str, str, str]:
    return text.size(of.bytes_read), text.size(of.bytes_transferred), text.size(of.bytes_stored)


def _table(title: str, *headings: str) -> Table:
    table = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        show_edge=False,
        title_justify="left",
        title_style="bold",
    )
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(
            heading.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    return table
