"""What the demo prints: the catalog as three tables, bytes, and commands to try next."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from sendense import Backup, BackupContext
from sendense.cli import text

NARROW = 100


def show_catalog(
    console: Console, contexts: Sequence[BackupContext], jobs: Sequence[Backup]
) -> None:
    """The tables `vm_backup_contexts`, `backup_jobs` and `backup_disks`, as the API tells them."""
    table = _table(
        "vm_backup_contexts", "context", "VM", "site", "repository", "backups", "last backup"
    )
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

    table = _table(
        "backup_jobs", "job", "type", "status", ">read", ">sent", ">stored", "completed at"
    )
    for job in jobs:
        table.add_row(
            job.job_id,
            text.backup_type(job.backup_type),
            text.status(job.status),
            text.size(job.bytes_read),
            text.size(job.bytes_transferred),
            text.size(job.bytes_stored),
            text.when(job.completed_at),
        )
    console.print(table)

    table = _table(
        "backup_disks",
        "disk",
        "key",
        "change id",
        "layer",
        ">read",
        ">sent",
        ">stored",
        "completed at",
    )
    for disk in (disk for job in jobs for disk in job.disks):
        table.add_row(
            str(disk.disk_index),
            str(disk.vmware_disk_key),
            disk.disk_change_id,
            disk.qcow2_path,
            text.size(disk.bytes_read),
            text.size(disk.bytes_transferred),
            text.size(disk.bytes_stored),
            text.when(disk.completed_at),
        )
    console.print(table)


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


def show_commands_for_hub(console: Console, address: str, control: Path, simulator: str) -> None:
    """What to do with the running demo."""
    _commands(
        console,
        f"export SENDENSE_HUB={address}",
        ".venv/bin/sendense vm list",
        ".venv/bin/sendense backup start pgtest1 --wait",
        f"{simulator} write pgtest1 0 1048576 --file README.md --control {control}",
        ".venv/bin/sendense backup start pgtest1 --wait",
        ".venv/bin/sendense job list",
        ".venv/bin/sendense restore JOB 0 --output /tmp/pgtest1-disk-0.raw",
        "make demo-down",
    )


def _commands(console: Console, *commands: str) -> None:
    for command in commands:
        # Not wrapped: a command is there to be copied.
        console.print(f"  {command}", style="bold", markup=False, highlight=False, soft_wrap=True)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(
            heading.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    return table
