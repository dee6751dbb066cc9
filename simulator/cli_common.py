"""What the commands share: asking the running simulator, sizes, ways to name things."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from simulator.control_client import ControlError, ask
from simulator.sizes import parse_size

errors = Console(stderr=True)

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


def fail(text: str) -> typer.Exit:
    """Say what is wrong; to be raised."""
    told = Text.assemble(("error:", "bold red"), f" {text}")
    errors.print(told, highlight=False, soft_wrap=True)
    return typer.Exit(1)


def ask_simulator(control: Path, command: str, **fields: Any) -> dict[str, Any]:
    """The answer to a command. Raises typer.Exit after saying why there is none."""
    try:
        return ask(control, {"command": command, **fields})
    except ControlError as error:
        raise fail(str(error)) from error


def size(text: str) -> int:
    """Bytes of an option's text. Raises typer.BadParameter."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Offset = Annotated[int, typer.Option("--offset", parser=size, help="Where: bytes, or '4 MiB'.")]
Length = Annotated[int, typer.Option("--length", parser=size, help="Bytes, or '64 KiB'.")]


def human_size(count: int) -> str:
    """Bytes as people read them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"
