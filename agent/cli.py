"""`sendense-agent`: run the agent of one site, check its configuration, probe its vSphere.

Exit codes: 0 stopped as told (or all well), 1 a defect, a snapshot is left
behind, or a probe found what stands against backups, 2 configuration, 3 vSphere
refuses user, password or certificate; of `check` and `probe` alone, as `run`
keeps trying: 4 vSphere cannot be reached, 5 the hub does not serve (`check`).
"""

import io
import json
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from agent.config import AgentSettings, load_config, warn_of_configuration
from agent.errors import HubNotServing
from agent.hub_check import check_hub
from agent.main import agent_version, run_agent
from agent.probe.errors import VmNotThere
from agent.probe.probe import probe as probe_site
from agent.probe.screen import lines
from agent.vsphere.errors import VsphereUnreachable
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from shared.errors import ConfigurationError, SendenseError
from shared.logs import configure_logging

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
EXIT_VSPHERE_REFUSES = 3
EXIT_VSPHERE_UNREACHABLE = 4
EXIT_HUB_NOT_SERVING = 5
EXIT_CODES = (
    "Exit codes: 0 all well; 1 a defect, a snapshot is left behind, or what stands against "
    "backups was found (probe); 2 the configuration cannot be used, or no such VM (probe); 3 "
    "vSphere refuses user, password or certificate; 4 vSphere cannot be reached (check, probe); 5 "
    "the hub does not serve (check)."
)

app = typer.Typer(
    help="The Sendense agent: snapshots, reads and uploads the VMs of one vSphere site.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="TOML file; SENDENSE_AGENT_* of the environment overrides it.",
        show_default=False,
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sendense-agent {agent_version()}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show and exit."),
    ] = False,
) -> None:
    """The Sendense agent: snapshots, reads and uploads the VMs of one vSphere site."""


@app.command(epilog=EXIT_CODES)
def run(config: ConfigOption = None) -> None:
    """Connect to vSphere and the hub, and serve until SIGTERM or Ctrl-C."""
    settings, vsphere = _load(config)
    configure_logging(settings.log_level)
    warn_of_configuration(settings, config)
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        clean = run_agent(settings, vsphere, stopping)
    except SendenseError as error:
        _end(error, _vsphere_exit_code(error))
    raise typer.Exit(0 if clean else EXIT_FAILED)


@app.command(epilog=EXIT_CODES)
def check(config: ConfigOption = None) -> None:
    """Read the configuration, log in to vSphere, call the hub, and show what answers."""
    settings, vsphere = _load(config)
    configure_logging("warning")
    warn_of_configuration(settings, config)
    try:
        with VsphereSite.connect(vsphere) as site:
            about = site.about()
            machines = site.virtual_machines()
    except SendenseError as error:
        _end(error, _vsphere_exit_code(error))
    disks = [disk for machine in machines for disk in machine.disks]
    skipped = [disk for disk in disks if disk.not_protectable_reason]
    typer.echo(f"site      {settings.site}")
    typer.echo(f"vSphere   {about.full_name} at {about.address}, API {about.api_version}")
    typer.echo(f"VMs       {len(machines)}, with {len(disks)} disks")
    if skipped:
        typer.echo(f"          {len(skipped)} of the disks cannot be backed up")
    try:
        check_hub(settings.hub_address)
    except HubNotServing as error:
        _end(error, EXIT_HUB_NOT_SERVING)
    typer.echo(f"hub       {settings.hub_address} serving")


@app.command(epilog=EXIT_CODES)
def probe(
    config: ConfigOption = None,
    vm: Annotated[
        str, typer.Option("--vm", help="One VM alone: its name, moref or instance uuid.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at a vSphere without changing it: privileges, VMs, disks, and the speed of a read.

    The read is of up to 64 MiB of a VM that is off, or of a snapshot that no backup made. While
    it lasts, some seconds and at most 5 minutes, the host may refuse to power that VM on, or to
    merge that snapshot.
    """
    settings, vsphere = _load(config)
    configure_logging("warning")
    warn_of_configuration(settings, config)
    try:
        with VsphereSite.connect(vsphere) as site:
            report = probe_site(site, vsphere, agent_version(), vm)
    except VmNotThere as error:
        _end(error, EXIT_CONFIGURATION)
    except SendenseError as error:
        _end(error, _vsphere_exit_code(error))
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        for line in lines(report):
            typer.echo(line)
    raise typer.Exit(0 if report.ok else EXIT_FAILED)


def main() -> None:
    """Entry point of the console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of VMs may hold what the screen cannot show: they are no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


def _load(config: Path | None) -> tuple[AgentSettings, VsphereSettings]:
    try:
        return load_config(config)
    except ConfigurationError as error:
        _end(error, EXIT_CONFIGURATION)


def _vsphere_exit_code(error: SendenseError) -> int:
    if isinstance(error, ConfigurationError):
        return EXIT_CONFIGURATION
    return (
        EXIT_VSPHERE_UNREACHABLE if isinstance(error, VsphereUnreachable) else EXIT_VSPHERE_REFUSES
    )


def _end(error: SendenseError, exit_code: int) -> NoReturn:
    typer.echo(f"sendense-agent: {error} ({error.code})", err=True)
    raise typer.Exit(exit_code)
