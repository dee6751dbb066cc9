"""sendense job: list, show, watch, cancel, retry."""

from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Annotated

import typer

from sendense import Backup, BackupOrder, BackupStatus, BackupType
from sendense.cli import text, times
from sendense.cli.backups import Type
from sendense.cli.following import follow, tell_started
from sendense.cli.job_tables import print_disks, print_jobs
from sendense.cli.options import (
    ContextFilter,
    JobArgument,
    RepositoryFilter,
    RunningJobArgument,
    UnsuccessfulJobArgument,
    VmFilter,
    WaitOption,
)
from sendense.cli.output import print_facts, print_json, print_json_list
from sendense.cli.progress import outcome
from sendense.cli.state import HubOption, JsonOption, connected, out

app = typer.Typer(help="Look at jobs, watch, cancel, retry and delete them.")


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
    vm: VmFilter = "",
    in_context: ContextFilter = "",
    repository: RepositoryFilter = "",
    status: Annotated[Status | None, typer.Option(help="Only jobs in this state.")] = None,
    backup_type: Annotated[
        Type | None, typer.Option("--type", help="Only jobs of this type.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="TIME",
            parser=times.moment,
            help="Only jobs created then or later: 2025-10-08, 2025-10-08T18:05 (UTC), 7d, 12h.",
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(metavar="TIME", parser=times.moment, help="Only jobs created before then."),
    ] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Oldest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the first ones.")] = 100,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    if since is not None and until is not None and since >= until:
        raise typer.BadParameter("--since must be before --until")
    with connected(context) as (client, state):
        found = client.list_backups(
            vm_name=vm,
            context_id=in_context,
            repository=repository,
            status=BackupStatus.UNSPECIFIED if status is None else BackupStatus[status.name],
            backup_type=(
                BackupType.UNSPECIFIED if backup_type is None else BackupType[backup_type.name]
            ),
            created_after=since,
            created_before=until,
            order=BackupOrder.OLDEST_FIRST if oldest_first else BackupOrder.UNSPECIFIED,
        )
        jobs = islice(found, limit)
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
    job: RunningJobArgument,
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
    job: RunningJobArgument,
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


@app.command()
def retry(
    context: typer.Context,
    job: UnsuccessfulJobArgument,
    wait: WaitOption = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a new job with what a failed or cancelled one was asked for."""
    with connected(context) as (client, state):
        tell_started(client, client.retry_backup(job), state, wait=wait)


def _facts(job: Backup) -> dict[str, str]:
    facts = {
        "job": job.job_id,
        "status": text.state(job),
        "error": text.problem(job),
        "VM": job.vm_name,
        "site": job.site,
        "repository": job.repository_name,
        "context": job.context_id,
        "retry of": job.retry_of_job_id,
        "imported": text.when(job.imported_at),
        "type": text.backup_type(job.backup_type),
        "consistency": text.consistency(job.consistency_level),
        "created": text.when(job.created_at),
        "started": text.when(job.started_at),
        "completed": text.when(job.completed_at),
        "took": text.elapsed(job),
        "read": text.of_job(job, f"{text.size(job.bytes_read)} of {text.size(job.bytes_planned)}"),
        "sent": text.of_job(job, text.size(job.bytes_transferred)),
        "stored": text.size(job.bytes_stored),
    }
    for position, warning in enumerate(job.warnings, 1):
        facts[f"warning {position}"] = text.warning(warning)
    return facts
