"""What every command needs: which hub, which output, and the options that say so."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console

from sendense import Client
from sendense.client import DEFAULT_ADDRESS

# What is written to a file or pipe is not folded to a terminal nobody has.
PIPE_WIDTH = 100_000


@dataclass
class State:
    """The global options, wherever on the command line they were given."""

    hub: str = DEFAULT_ADDRESS
    json: bool = False

    def client(self, *, timeout_s: float = 30.0) -> Client:
        """A client of the hub. Raises InvalidArgument for an unusable address."""
        return Client(self.hub, timeout_s=timeout_s)


def _take_hub(context: typer.Context, value: str | None) -> str | None:
    if value is not None:
        context.ensure_object(State).hub = value
    return value


def _take_json(context: typer.Context, value: bool) -> bool:
    if value:
        context.ensure_object(State).json = True
    return value


HubOption = Annotated[
    str | None,
    typer.Option(
        "--hub",
        metavar="ADDRESS",
        help=f"The hub as host or host:port.  [default: {DEFAULT_ADDRESS}]",
        callback=_take_hub,
        show_default=False,
    ),
]
RootHubOption = Annotated[
    str | None,
    typer.Option(
        "--hub",
        metavar="ADDRESS",
        help=f"The hub as host or host:port.  [default: {DEFAULT_ADDRESS}]",
        envvar="SENDENSE_HUB",
        callback=_take_hub,
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, for programs.", callback=_take_json),
]


@contextmanager
def connected(context: typer.Context) -> Iterator[tuple[Client, State]]:
    """The client and the options of a command."""
    state = context.ensure_object(State)
    with state.client() as client:
        yield client, state


def out() -> Console:
    """Standard output, for results. Names and messages of others are never read as markup."""
    return _console(stderr=False)


def err() -> Console:
    """Standard error, for progress and remarks."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        markup=False,
        emoji=False,
        highlight=False,
        width=None if stream.isatty() else PIPE_WIDTH,
    )
