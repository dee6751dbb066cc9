"""sendense backup: start one."""

from enum import StrEnum
from typing import Annotated

import typer

from sendense import BackupType
from sendense.cli import completion
from sendense.cli.following import tell_started
from sendense.cli.options import RepositoryChoice, SiteOfVm, WaitOption
from sendense.cli.state import HubOption, JsonOption, connected

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
    vm: Annotated[
        str,
        typer.Argument(
            metavar="VM",
            help="Name, moref (vm-12) or instance uuid.",
            autocompletion=completion.virtual_machines,
        ),
    ],
    site: SiteOfVm = "",
    repository: RepositoryChoice = "",
    backup_type: Annotated[
        Type | None,
        typer.Option(
            "--type", help="[default: incremental where a base exists]", show_default=False
        ),
    ] = None,
    quiesce: Annotated[
        bool, typer.Option("--quiesce", help="Ask VMware Tools to quiesce the file systems.")
    ] = False,
    wait: WaitOption = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a backup of a VM."""
    wanted = BackupType.UNSPECIFIED if backup_type is None else BackupType[backup_type.name]
    with connected(context) as (client, state):
        job = client.start_backup(
            vm, site=site, repository=repository, backup_type=wanted, quiesce=quiesce
        )
        tell_started(client, job, state, wait=wait)
