"""`sendense-simulator`: run a simulated ESXi site, be its guests, administrator and bad luck."""

import io
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from simulator.cli_admin import add_admin_commands
from simulator.cli_common import errors, fail
from simulator.cli_faults import fault_app
from simulator.cli_guest import add_guest_commands

app = typer.Typer(
    help="A simulated ESXi site: pyVmomi and NFC clients cannot tell it from a real host.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sendense-simulator {version('sendense-server')}")
        raise typer.Exit


@app.callback()
def _program(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A simulated ESXi site: pyVmomi and NFC clients cannot tell it from a real host."""


@app.command()
def run(
    state_dir: Annotated[
        Path, typer.Option(help="Folder for disks, certificate, password and control socket.")
    ],
    site: Annotated[
        Path | None, typer.Option(help="Site file (TOML) with the VMs; default: a few examples.")
    ] = None,
    listen: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.2",
    port: Annotated[int, typer.Option(help="Port of the vSphere API; 0: any free one.")] = 8989,
    nfc_port: Annotated[int, typer.Option(help="Port of the NFC service; 0: any free one.")] = 9902,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write addresses and certificate digest here once ready.")
    ] = None,
    record_snapshots: Annotated[
        bool,
        typer.Option(
            "--record-snapshots",
            help="Keep a raw copy of every disk as each snapshot froze it: "
            "STATE_DIR/recorded/SNAPSHOT/disk-KEY.raw.",
        ),
    ] = False,
) -> None:
    """Run a site until interrupted. Its disks start anew each time; STATE_DIR keeps the
    certificate and the password of the user root."""
    # The server's imports (pyVmomi, numpy) take most of a second: no other command needs them.
    from simulator.serve import CannotServe, serve

    try:
        serve(
            state_dir,
            site,
            listen=listen,
            port=port,
            nfc_port=nfc_port,
            ready_file=ready_file,
            record_snapshots=record_snapshots,
            announce=lambda text: errors.print(text, highlight=False, markup=False),
        )
    except CannotServe as error:
        raise fail(str(error)) from error


add_guest_commands(app)
add_admin_commands(app)
app.add_typer(fault_app, name="fault")


def main() -> None:
    """Entry point."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of VMs may hold what the screen cannot show: they are no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    app()
