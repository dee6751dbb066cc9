"""sendense backup: start one."""

from enum import StrEnum
from typing import Annotated

import typer

from sendense import BackupStatus, BackupType
from sendense.cli.following import follow
from sendense.cli.output import print_json
from sendense.cli.state import HubOption, JsonOption, connected, err, out
from sendense.cli.text import plain

app = typer.Typer(help="Start backups.")


class Type(StrEnum):
    """--type."""

    FULL = "full"
    INCREMENTAL = "incremental"


@app.callback()
def group() -> None:
    """Start backups."""


@app.command()
def start(
    context: typer.Context,
    vm: Annotated[str, typer.Argument(metavar="VM", help="Name, moref (vm-12) or instance uuid.")],
    site: Annotated[
        str, typer.Option(help="Site of the VM, where several have one of that name.")
    ] = "",
    repository: Annotated[
        str, typer.Option(metavar="NAME", help="Repository, by name or id.  [default: the hub's]")
    ] = "",
    backup_type: Annotated[
        Type | None,
        typer.Option(
            "--type", help="[default: incremental where a base exists]", show_default=False
        ),
    ] = None,
    quiesce: Annotated[
        bool, typer.Option("--quiesce", help="Ask VMware Tools to quiesce the file systems.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the job until it ended; fail when it does.")
    ] = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a backup of a VM."""
    wanted = BackupType.UNSPECIFIED if backup_type is None else BackupType[backup_type.name]
    with connected(context) as (client, state):
        job = client.start_backup(
            vm, site=site, repository=repository, backup_type=wanted, quiesce=quiesce
        )
        if wait:
            err().print(f"{job.job_id}: started")
            job = follow(client, job.job_id)
            if state.json:
                print_json(job)
            if BackupStatus(job.status) is not BackupStatus.COMPLETED:
                raise typer.Exit(1)
        elif state.json:
            print_json(job)
        else:
            out().print(plain(job.job_id), soft_wrap=True)
            err().print(f"follow it with: sendense job watch {plain(job.job_id)}", soft_wrap=True)
