"""The `sendense` command: its groups of commands, and how it ends."""

import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from sendense import SendenseError
from sendense.cli import (
    agents,
    backups,
    contexts,
    deletions,
    disks,
    failures,
    hubs,
    jobs,
    repositories,
    restores,
    vms,
)
from sendense.cli.failures import ExitCode
from sendense.cli.state import JsonOption, RootHubOption
from sendense.cli.statistics import statistics

_HELP = """
Back up VMware VMs and restore their disks, through a Sendense hub.

Results go to standard output, progress and errors to standard error.
"""
_EPILOG = (
    "Exit codes: 0 done; 1 the operation failed (a job failed or was cancelled); "
    "2 wrong usage or a value that cannot be used; 3 hub unreachable; 4 not found; "
    "5 refused: wrong state, exists already, no space; 6 data damaged; 130 interrupted."
)

app = typer.Typer(
    name="sendense",
    help=_HELP,
    epilog=_EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
jobs.app.command("delete")(deletions.delete_job)
contexts.app.command("delete")(deletions.delete_context)
app.add_typer(vms.app, name="vm")
app.add_typer(backups.app, name="backup")
app.add_typer(jobs.app, name="job")
app.add_typer(contexts.app, name="context")
app.add_typer(disks.app, name="disk")
app.command("restore")(restores.restore)
app.add_typer(repositories.app, name="repository")
app.add_typer(agents.app, name="agent")
app.add_typer(hubs.app, name="hub")
app.command("statistics")(statistics)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sendense {version('sendense')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    hub: RootHubOption = None,
    as_json: JsonOption = False,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """The options' callbacks keep what they were given; without a command there is only help."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(ExitCode.USAGE)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error is printed, none raised."""
    # What the command line could not be parsed for is still answered in the form asked for.
    as_json = "--json" in arguments
    try:
        result: Any = app(list(arguments), prog_name="sendense", standalone_mode=False)
    except SendenseError as error:
        return failures.report(error, as_json=as_json)
    except typer.TyperException as error:
        return failures.report_usage(error, as_json=as_json)
    except (typer.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a defect: people get a sentence, not a traceback
        return failures.report_defect(error, as_json=as_json)
    return result if isinstance(result, int) else ExitCode.OK


def _interrupt(signal_number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of the program."""
    # Asked to end politely, a restore removes its partial file as after Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run(sys.argv[1:]))
