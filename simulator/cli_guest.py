"""`sendense-simulator`: what is there, and being a guest."""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from simulator.cli_common import (
    AsJson,
    ControlPath,
    DiskNumber,
    Length,
    Offset,
    VmName,
    ask_simulator,
    fail,
    human_size,
    size,
)
from simulator.cli_tables import print_table


def vms(control: ControlPath, as_json: AsJson = False) -> None:
    """List the VMs and their disks."""
    found = ask_simulator(control, "vms")["vms"]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table: list[list[str]] = []
    for vm in found:
        tracking = "on" if vm["change_tracking_enabled"] else "off"
        head = [vm["name"], vm["moid"], vm["power_state"], tracking, str(vm["snapshots"])]
        rows = [
            [
                disk["label"],
                str(disk["key"]),
                human_size(disk["capacity_bytes"]),
                human_size(disk["stored_bytes"]),
            ]
            for disk in vm["disks"]
        ] or [["-", "", "", ""]]
        for number, row in enumerate(rows):
            table.append([*(head if number == 0 else [""] * len(head)), *row])
    print_table(
        ("VM", "Id", "Power", "CBT", "Snapshots", "Disk", "Key", "Capacity", "Stored"), table
    )


def snapshots(
    control: ControlPath,
    vm: Annotated[str | None, typer.Argument(help="Only of this VM.")] = None,
    as_json: AsJson = False,
) -> None:
    """List snapshots with the change id of each disk."""
    found = ask_simulator(control, "snapshots", vm=vm)["snapshots"]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    print_table(
        ("VM", "Snapshot", "Id", "Created", "Disk key", "Change id"),
        (
            [one["vm"], one["name"], one["moid"], one["created"], key, disk["change_id"] or "-"]
            for one in found
            for key, disk in (one["disks"] or {"-": {"change_id": None}}).items()
        ),
    )


def write(
    vm: VmName,
    disk: DiskNumber,
    control: ControlPath,
    offset: Offset,
    text: Annotated[str | None, typer.Option(help="Write these characters.")] = None,
    file: Annotated[Path | None, typer.Option(help="Write the bytes of this file.")] = None,
    random: Annotated[
        int | None, typer.Option(parser=size, help="Write so many random bytes.")
    ] = None,
) -> None:
    """Write to a disk as its guest would. One of --text, --file and --random says what."""
    if sum(one is not None for one in (text, file, random)) != 1:
        raise fail("give exactly one of --text, --file and --random")
    if file is not None:
        if not file.is_file():
            raise fail(f"{file}: no such file")
        answer = ask_simulator(
            control, "write", vm=vm, disk=disk, offset=offset, file=str(file.resolve())
        )
        typer.echo(f"wrote {answer['bytes']} bytes")
        return
    data = text.encode() if text is not None else os.urandom(random or 0)
    written = 0
    while written < len(data):
        part = base64.b64encode(data[written : written + (1 << 20)]).decode("ascii")
        answer = ask_simulator(
            control, "write", vm=vm, disk=disk, offset=offset + written, data=part
        )
        written += answer["bytes"]
    typer.echo(f"wrote {written} bytes")


def zero(
    vm: VmName, disk: DiskNumber, control: ControlPath, offset: Offset, length: Length
) -> None:
    """Write zeros to a disk."""
    answer = ask_simulator(control, "zero", vm=vm, disk=disk, offset=offset, length=length)
    typer.echo(f"zeroed {answer['bytes']} bytes")


def trim(
    vm: VmName, disk: DiskNumber, control: ControlPath, offset: Offset, length: Length
) -> None:
    """Give space of a disk back (UNMAP)."""
    answer = ask_simulator(control, "trim", vm=vm, disk=disk, offset=offset, length=length)
    typer.echo(f"trimmed {answer['bytes']} bytes")


def content(
    vm: VmName, disk: DiskNumber, control: ControlPath, offset: Offset, length: Length
) -> None:
    """Print bytes of a disk as the guest sees them now."""
    at = offset
    while at < offset + length:
        part = min(1 << 20, offset + length - at)
        answer = ask_simulator(control, "content", vm=vm, disk=disk, offset=at, length=part)
        sys.stdout.buffer.write(base64.b64decode(answer["data"]))
        at += part
    sys.stdout.buffer.flush()


def add_guest_commands(app: typer.Typer) -> None:
    """Put the commands into the program."""
    for command in (vms, snapshots, write, zero, trim, content):
        app.command()(command)
