"""`sendense-simulator`: being the administrator of VMs, disks, snapshots and the host."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from simulator.cli_common import ControlPath, DiskNumber, VmName, ask_simulator, size


def add_disk(
    vm: VmName,
    control: ControlPath,
    capacity: Annotated[int, typer.Option(parser=size, help="Bytes, or '6 GiB'.")],
    file: Annotated[Path | None, typer.Option(help="Raw image to start from.")] = None,
    controller: Annotated[int, typer.Option(help="Number of the SCSI controller.")] = 0,
    unit: Annotated[int | None, typer.Option(help="Default: the next free one.")] = None,
    key: Annotated[int | None, typer.Option(help="Device key; default: as ESXi counts.")] = None,
    uuid: Annotated[str | None, typer.Option(help="Default: a new one.")] = None,
) -> None:
    """Attach a new disk to a VM."""
    image = str(file.resolve()) if file else None
    _show(
        ask_simulator(
            control,
            "add-disk",
            vm=vm,
            capacity=capacity,
            file=image,
            controller=controller,
            unit=unit,
            key=key,
            uuid=uuid,
        )
    )


def remove_disk(vm: VmName, disk: DiskNumber, control: ControlPath) -> None:
    """Detach a disk; its bytes are gone unless a snapshot holds them."""
    _show(ask_simulator(control, "remove-disk", vm=vm, disk=disk))


def move_disk(
    vm: VmName,
    disk: DiskNumber,
    control: ControlPath,
    controller: Annotated[int, typer.Option(help="Number of the SCSI controller.")],
    unit: Annotated[int | None, typer.Option(help="Default: the next free one.")] = None,
) -> None:
    """Put a disk behind another controller: another device key, the same uuid."""
    answer = ask_simulator(control, "move-disk", vm=vm, disk=disk, controller=controller, unit=unit)
    _show(answer)


def reorder_disks(
    vm: VmName,
    order: Annotated[
        list[int], typer.Argument(help="All disks in their new order, by position or device key.")
    ],
    control: ControlPath,
) -> None:
    """Let the disks of a VM change places: keys and labels stay with the places."""
    for disk in ask_simulator(control, "reorder-disks", vm=vm, order=order)["disks"]:
        _show(disk)


def power_loss(vm: VmName, control: ControlPath) -> None:
    """The host of a VM loses power and comes back: change tracking starts anew."""
    ask_simulator(control, "power-loss", vm=vm)
    typer.echo(f"{vm} lost power")


class Certificate(StrEnum):
    """Whose certificate."""

    HOST = "host"
    NFC = "nfc"


def change_certificate(
    control: ControlPath,
    of: Annotated[
        Certificate, typer.Option("--of", help="The whole host's, or of its NFC service alone.")
    ] = Certificate.HOST,
) -> None:
    """Replace the certificate by a new one. Connections drop."""
    answer = ask_simulator(control, "change-certificate", of=of.value)
    typer.echo(answer["certificate_sha256"])


def grow(
    vm: VmName,
    disk: DiskNumber,
    control: ControlPath,
    capacity: Annotated[int, typer.Option(parser=size, help="New capacity: bytes, or '6 GiB'.")],
) -> None:
    """Extend a disk. Refused while the VM has snapshots."""
    answer = ask_simulator(control, "grow", vm=vm, disk=disk, capacity=capacity)
    typer.echo(f"capacity is now {answer['capacity']} bytes")


def power(
    vm: VmName,
    state: Annotated[str, typer.Argument(help="poweredOn, poweredOff or suspended.")],
    control: ControlPath,
) -> None:
    """Change the power state of a VM."""
    answer = ask_simulator(control, "power", vm=vm, state=state)
    typer.echo(f"{vm} is {answer['power_state']}")


def snapshot(
    vm: VmName,
    name: Annotated[str, typer.Argument(help="Its name.")],
    control: ControlPath,
    age_h: Annotated[
        float, typer.Option("--age-h", min=0, help="Hours ago that it says it was taken.")
    ] = 0,
) -> None:
    """Take a snapshot, as an administrator might."""
    typer.echo(ask_simulator(control, "snapshot", vm=vm, name=name, age_h=age_h)["moid"])


def remove_snapshot(
    vm: VmName,
    name: Annotated[str, typer.Argument(help="Name or managed object id.")],
    control: ControlPath,
) -> None:
    """Remove a snapshot and consolidate its disks."""
    ask_simulator(control, "remove-snapshot", vm=vm, snapshot=name)
    typer.echo(f"removed {name}")


def revert(
    vm: VmName,
    name: Annotated[str, typer.Argument(help="Name or managed object id of the snapshot.")],
    control: ControlPath,
) -> None:
    """Revert a VM to a snapshot. It is powered off afterwards.

    What becomes of change tracking is a setting of the site: reverted_tracking.
    """
    answer = ask_simulator(control, "revert", vm=vm, snapshot=name)
    typer.echo(f"{vm} is at {answer['snapshot']}")


def reset_tracking(vm: VmName, control: ControlPath) -> None:
    """Let changed block tracking of a VM start anew, as after a power loss."""
    ask_simulator(control, "reset-tracking", vm=vm)
    typer.echo(f"tracking of {vm} was reset")


def expire_sessions(control: ControlPath) -> None:
    """End all login sessions: every client must log in again."""
    typer.echo(f"ended {ask_simulator(control, 'expire-sessions')['ended']} sessions")


def _show(disk: dict[str, Any]) -> None:
    typer.echo(
        f"{disk['label']}: key {disk['key']}, controller {disk['controller']}, "
        f"unit {disk['unit']}, uuid {disk['uuid']}"
    )


def add_admin_commands(app: typer.Typer) -> None:
    """Put the commands into the program."""
    for command in (
        add_disk,
        remove_disk,
        move_disk,
        reorder_disks,
        grow,
        power,
        power_loss,
        snapshot,
        remove_snapshot,
        revert,
        reset_tracking,
        expire_sessions,
        change_certificate,
    ):
        app.command()(command)
