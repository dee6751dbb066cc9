"""`sendense-simulator`: run a simulated ESXi site, and be its guests."""

import base64
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from simulator.control_client import ControlError, ask
from simulator.sizes import parse_size

app = typer.Typer(
    help="A simulated ESXi site: pyVmomi and NFC clients cannot tell it from a real host.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_errors = Console(stderr=True)

ControlPath = Annotated[
    Path,
    typer.Option(
        "--control",
        envvar="SENDENSE_SIMULATOR_CONTROL",
        help="Control socket of the running simulator: STATE_DIR/control.sock.",
    ),
]
VmName = Annotated[str, typer.Argument(help="Name or managed object id of the VM.")]
DiskNumber = Annotated[
    int, typer.Argument(help="Position of the disk (0 is the first) or its device key.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _fail(text: str) -> typer.Exit:
    _errors.print(f"[bold red]error:[/] {text}", highlight=False, soft_wrap=True)
    return typer.Exit(1)


def _ask(control: Path, command: str, **fields: Any) -> dict[str, Any]:
    try:
        return ask(control, {"command": command, **fields})
    except ControlError as error:
        raise _fail(str(error)) from error


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Offset = Annotated[int, typer.Option("--offset", parser=_size, help="Where: bytes, or '4 MiB'.")]
Length = Annotated[int, typer.Option("--length", parser=_size, help="Bytes, or '64 KiB'.")]


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
            announce=lambda text: _errors.print(text, highlight=False),
        )
    except CannotServe as error:
        raise _fail(str(error)) from error


@app.command()
def vms(control: ControlPath, as_json: AsJson = False) -> None:
    """List the VMs and their disks."""
    found = _ask(control, "vms")["vms"]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("VM", "Id", "Power", "CBT", "Snapshots", "Disk", "Key", "Capacity", "Stored")
    for vm in found:
        tracking = "on" if vm["change_tracking_enabled"] else "off"
        head = [vm["name"], vm["moid"], vm["power_state"], tracking, str(vm["snapshots"])]
        rows = [
            [
                disk["label"],
                str(disk["key"]),
                _human(disk["capacity_bytes"]),
                _human(disk["stored_bytes"]),
            ]
            for disk in vm["disks"]
        ] or [["-", "", "", ""]]
        for number, row in enumerate(rows):
            table.add_row(*(head if number == 0 else [""] * len(head)), *row)
    Console().print(table)


@app.command()
def snapshots(
    control: ControlPath,
    vm: Annotated[str | None, typer.Argument(help="Only of this VM.")] = None,
    as_json: AsJson = False,
) -> None:
    """List snapshots with the change id of each disk."""
    found = _ask(control, "snapshots", vm=vm)["snapshots"]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("VM", "Snapshot", "Id", "Created", "Disk key", "Change id")
    for one in found:
        for key, disk in (one["disks"] or {"-": {"change_id": None}}).items():
            table.add_row(
                one["vm"], one["name"], one["moid"], one["created"], key, disk["change_id"] or "-"
            )
    Console().print(table)


@app.command()
def write(
    vm: VmName,
    disk: DiskNumber,
    control: ControlPath,
    offset: Offset,
    text: Annotated[str | None, typer.Option(help="Write these characters.")] = None,
    file: Annotated[Path | None, typer.Option(help="Write the bytes of this file.")] = None,
    random: Annotated[
        int | None, typer.Option(parser=_size, help="Write so many random bytes.")
    ] = None,
) -> None:
    """Write to a disk as its guest would. One of --text, --file and --random says what."""
    if sum(one is not None for one in (text, file, random)) != 1:
        raise _fail("give exactly one of --text, --file and --random")
    if file is not None:
        if not file.is_file():
            raise _fail(f"{file}: no such file")
        answer = _ask(control, "write", vm=vm, disk=disk, offset=offset, file=str(file.resolve()))
        typer.echo(f"wrote {answer['bytes']} bytes")
        return
    data = text.encode() if text is not None else os.urandom(random or 0)
    written = 0
    while written < len(data):
        part = base64.b64encode(data[written : written + (1 << 20)]).decode("ascii")
        answer = _ask(control, "write", vm=vm, disk=disk, offset=offset + written, data=part)
        written += answer["bytes"]
    typer.echo(f"wrote {written} bytes")


@app.command()
def zero(
    vm: VmName, disk: DiskNumber, control: ControlPath, offset: Offset, length: Length
) -> None:
    """Write zeros to a disk."""
    answer = _ask(control, "zero", vm=vm, disk=disk, offset=offset, length=length)
    typer.echo(f"zeroed {answer['bytes']} bytes")


@app.command()
def trim(
    vm: VmName, disk: DiskNumber, control: ControlPath, offset: Offset, length: Length
) -> None:
    """Give space of a disk back (UNMAP)."""
    answer = _ask(control, "trim", vm=vm, disk=disk, offset=offset, length=length)
    typer.echo(f"trimmed {answer['bytes']} bytes")


@app.command()
def grow(
    vm: VmName,
    disk: DiskNumber,
    control: ControlPath,
    capacity: Annotated[int, typer.Option(parser=_size, help="New capacity: bytes, or '6 GiB'.")],
) -> None:
    """Extend a disk. Refused while the VM has snapshots."""
    answer = _ask(control, "grow", vm=vm, disk=disk, capacity=capacity)
    typer.echo(f"capacity is now {answer['capacity']} bytes")


@app.command()
def content(
    vm: VmName, disk: DiskNumber, control: ControlPath, offset: Offset, length: Length
) -> None:
    """Print bytes of a disk as the guest sees them now."""
    at = offset
    while at < offset + length:
        part = min(1 << 20, offset + length - at)
        answer = _ask(control, "content", vm=vm, disk=disk, offset=at, length=part)
        sys.stdout.buffer.write(base64.b64decode(answer["data"]))
        at += part
    sys.stdout.buffer.flush()


@app.command()
def power(
    vm: VmName,
    state: Annotated[str, typer.Argument(help="poweredOn, poweredOff or suspended.")],
    control: ControlPath,
) -> None:
    """Change the power state of a VM."""
    answer = _ask(control, "power", vm=vm, state=state)
    typer.echo(f"{vm} is {answer['power_state']}")


@app.command()
def snapshot(
    vm: VmName, name: Annotated[str, typer.Argument(help="Its name.")], control: ControlPath
) -> None:
    """Take a snapshot, as an administrator might."""
    typer.echo(_ask(control, "snapshot", vm=vm, name=name)["moid"])


@app.command()
def remove_snapshot(
    vm: VmName,
    name: Annotated[str, typer.Argument(help="Name or managed object id.")],
    control: ControlPath,
) -> None:
    """Remove a snapshot and consolidate its disks."""
    _ask(control, "remove-snapshot", vm=vm, snapshot=name)
    typer.echo(f"removed {name}")


@app.command()
def revert(
    vm: VmName,
    name: Annotated[str, typer.Argument(help="Name or managed object id of the snapshot.")],
    control: ControlPath,
) -> None:
    """Revert a VM to a snapshot. It is powered off afterwards; change tracking starts anew."""
    answer = _ask(control, "revert", vm=vm, snapshot=name)
    typer.echo(f"{vm} is at {answer['snapshot']}")


@app.command()
def reset_tracking(vm: VmName, control: ControlPath) -> None:
    """Let changed block tracking of a VM start anew, as after a power loss."""
    _ask(control, "reset-tracking", vm=vm)
    typer.echo(f"tracking of {vm} was reset")


@app.command()
def expire_sessions(control: ControlPath) -> None:
    """End all login sessions: every client must log in again."""
    typer.echo(f"ended {_ask(control, 'expire-sessions')['ended']} sessions")


def _human(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def main() -> None:
    """Entry point."""
    app()
