"""`sendense-simulator fault`: what the site is to do wrong."""

import json
from typing import Annotated, Any, Final

import typer

from simulator.cli_common import AsJson, ControlPath, ask_simulator, fail
from simulator.cli_tables import print_table

_LONGEST_NUMBER: Final = 18

fault_app = typer.Typer(
    help="Let the site do wrong what real sites do wrong.", no_args_is_help=True
)


@fault_app.command()
def kinds(
    name: Annotated[str | None, typer.Argument(help="Only this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the faults there are, with their options. Needs no running simulator."""
    # Slow to import (pydantic, numpy), and no other command needs it.
    from simulator.faults.registry import described

    found = described()
    if name is not None:
        found = [one for one in found if one["name"] == name]
        if not found:
            raise fail(f"no fault is named {name!r}")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    print_table(
        ("Fault", "For", "What happens", "Options"),
        (
            [one["name"], one["scope"], " ".join(one["text"].split()), _options(one["options"])]
            for one in found
        ),
    )


@fault_app.command(name="set")
def set_fault(
    name: Annotated[str, typer.Argument(help="Name of the fault.")],
    control: ControlPath,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTION=VALUE]...", help="Options of the fault.")
    ] = None,
    vm: Annotated[str | None, typer.Option(help="Only for this VM.")] = None,
    disk: Annotated[int | None, typer.Option(help="Only for this disk of the VM.")] = None,
    times: Annotated[
        int | None, typer.Option(min=1, help="How often; default: until it is cleared.")
    ] = None,
    skip: Annotated[int, typer.Option(min=0, help="Let so many chances pass first.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Set a fault."""
    values: dict[str, str] = {}
    for option in options or []:
        key, equals, value = option.partition("=")
        if not equals:
            raise fail(f"{option}: an option is given as OPTION=VALUE")
        values[key] = value
    made = ask_simulator(
        control, "fault-set", name=name, options=values, vm=vm, disk=disk, times=times, skip=skip
    )["fault"]
    typer.echo(json.dumps(made, indent=2) if as_json else f"fault {made['number']} is set")


@fault_app.command(name="list")
def list_faults(control: ControlPath, as_json: AsJson = False) -> None:
    """List the faults that are set, and how often each fired."""
    found = ask_simulator(control, "fault-list")["faults"]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    print_table(
        ("Number", "Fault", "VM", "Disk", "Options", "Times", "Fired", "State"),
        (
            [
                str(one["number"]),
                one["name"],
                one["vm"] or "(host)",
                "-" if one["disk"] is None else str(one["disk"]),
                " ".join(f"{key}={value}" for key, value in one["options"].items()),
                "until cleared" if one["times"] is None else str(one["times"]),
                str(one["fired"]),
                "set" if one["live"] else "spent",
            ]
            for one in found
        ),
    )


@fault_app.command()
def clear(
    control: ControlPath,
    which: Annotated[
        str | None, typer.Argument(help="Number of a fault, or a name: all of that name.")
    ] = None,
    vm: Annotated[str | None, typer.Option(help="Those of this VM.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All faults.")] = False,
) -> None:
    """Clear faults; what they held goes on."""
    if everything == (which is not None or vm is not None):
        raise fail("say which: a number, a name, --vm or --all")
    gone = ask_simulator(control, "fault-clear", which=_number(which), vm=vm)["cleared"]
    if not gone and not everything:
        named = f" {which!r}" if which is not None else ""
        raise fail(f"no fault{named} is set" + (f" for {vm}" if vm is not None else ""))
    typer.echo(f"cleared {len(gone)} faults")


def _number(which: str | None) -> int | str | None:
    """A fault's number where it is one. Longer ones, which nothing ever has, stay words."""
    is_number = which is not None and which.isdecimal() and len(which) <= _LONGEST_NUMBER
    return int(which) if which is not None and is_number else which


def _options(options: list[dict[str, Any]]) -> str:
    return "\n".join(_option(option) for option in options)


def _option(option: dict[str, Any]) -> str:
    values = " | ".join(map(str, option["values"] or [])) or option["type"]
    default = "" if option["default"] is None else f" [{option['default']}]"
    needed = " (needed)" if option["required"] else ""
    text = f": {option['text']}" if option["text"] else ""
    return f"{option['name']}={values}{default}{needed}{text}"
