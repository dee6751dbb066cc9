"""sendense job: list, show, watch, cancel."""

from enum import StrEnum
from itertools import islice
from typing import Annotated

import typer

from sendense import Backup, BackupDisk, BackupStatus
from sendense.cli import text
from sendense.cli.following import follow
from sendense.cli.output import print_facts, print_json, print_json_list, print_table
from sendense.cli.progress import outcome
from sendense.cli.state import HubOption, JsonOption, connected, out
from sendense.cli.tables import Column, number, words

app = typer.Typer(help="Look at jobs, watch and cancel them.")

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Job id.")]


class Status(StrEnum):
    """--status."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@app.command("list")
def list_jobs(
    context: typer.Context,
    vm: Annotated[str, typer.Option(help="Only jobs of VMs of this name.")] = "",
    in_context: Annotated[str, typer.Option("--context", help="Only jobs of this context.")] = "",
    repository: Annotated[str, typer.Option(help="Only jobs in this repository.")] = "",
    status: Annotated[Status | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 100,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    wanted = BackupStatus.UNSPECIFIED if status is None else BackupStatus[status.name]
    with connected(context) as (client, state):
        jobs = islice(
            client.list_backups(
                vm_name=vm, context_id=in_context, repository=repository, status=wanted
            ),
            limit,
        )
        if state.json:
            print_json_list("backups", jobs)
        else:
            print_jobs(list(jobs))


@app.command()
def show(
    context: typer.Context,
    job: JobArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one job with its disks."""
    with connected(context) as (client, state):
        found = client.get_backup(job)
        if state.json:
            print_json(found)
            return
        print_facts(_facts(found))
        out().print()
        print_disks(list(found.disks), with_job=False)


@app.command()
def watch(
    context: typer.Context,
    job: JobArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a job until it ended; with --json a line for every state."""
    with connected(context) as (client, state):
        if state.json:
            last = Backup()
            for last in client.watch(job):
                print_json(last, line=True)
        else:
            last = follow(client, job)
        if BackupStatus(last.status) is not BackupStatus.COMPLETED:
            raise typer.Exit(1)


@app.command()
def cancel(
    context: typer.Context,
    job: JobArgument,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for the end of a job; one that ended stays as it is."""
    with connected(context) as (client, state):
        # The answer alone does not tell a job that this ended from one that had ended.
        before = client.get_backup(job)
        answer = client.cancel_backup(job, reason=reason)
        if state.json:
            print_json(answer)
        elif BackupStatus(before.status).ended:
            out().print(
                text.plain(f"nothing to cancel, the job had ended already: {outcome(answer)}"),
                soft_wrap=True,
            )
        elif BackupStatus(answer.status).ended:
            out().print(text.plain(outcome(answer)), soft_wrap=True)
        else:
            out().print(f"{text.plain(answer.job_id)}: asked to end", soft_wrap=True)


def print_jobs(jobs: list[Backup]) -> None:
    """A table of jobs."""
    print_table(
        (
            "Job",
            words("VM", spare=1),  # a job's id begins with it
            words("Site", spare=4),
            words("Repository", spare=5),
            "Type",
            "Status",
            number("Warnings"),
            "Created",
            Column("Took", spare=2),
            number("Read", spare=6),
            number("Sent", spare=3),
            number("Stored", spare=7),
        ),
        [
            (
                job.job_id,
                job.vm_name,
                job.site,
                job.repository_name,
                text.backup_type(job.backup_type),
                text.status(job.status),
                str(len(job.warnings) or ""),
                text.when(job.created_at),
                text.elapsed(job),
                text.size(job.bytes_read),
                text.size(job.bytes_transferred),
                text.size(job.bytes_stored),
            )
            for job in jobs
        ],
        empty="no jobs",
    )


def print_disks(disks: list[BackupDisk], *, with_job: bool = True) -> None:
    """A table of disk rows; without the column of jobs where all are of one that is known."""
    print_table(
        (
            *(["Job"] if with_job else []),
            number("Disk"),
            number("Key", spare=4),
            words("Label"),
            number("Capacity"),
            "Type",
            "Status",
            number("Read", spare=3),
            number("Sent", spare=1),
            number("Stored", spare=2),
            Column("Completed", spare=5),
        ),
        [
            (
                *([disk.job_id] if with_job else []),
                str(disk.disk_index),
                str(disk.vmware_disk_key),
                disk.label,
                text.size(disk.capacity_bytes),
                text.backup_type(disk.backup_type),
                text.status(disk.status),
                text.size(disk.bytes_read),
                text.size(disk.bytes_transferred),
                text.size(disk.bytes_stored),
                text.when(disk.completed_at),
            )
            for disk in disks
        ],
        empty="no disks",
    )


def _facts(job: Backup) -> dict[str, str]:
    facts = {
        "job": job.job_id,
        "status": text.state(job),
        "error": text.problem(job),
        "VM": job.vm_name,
        "site": job.site,
        "repository": job.repository_name,
        "context": job.context_id,
        "type": text.backup_type(job.backup_type),
        "consistency": text.consistency(job.consistency_level),
        "created": text.when(job.created_at),
        "started": text.when(job.started_at),
        "completed": text.when(job.completed_at),
        "took": text.elapsed(job),
        "read": f"{text.size(job.bytes_read)} of {text.size(job.bytes_planned)}",
        "sent": text.size(job.bytes_transferred),
        "stored": text.size(job.bytes_stored),
    }
    for position, warning in enumerate(job.warnings, 1):
        about = f"{warning.disk_label}: " if warning.disk_label else ""
        facts[f"warning {position}"] = f"{about}{warning.message} ({warning.code})"
    return facts
