"""Asking before something goes for good."""

import sys

import typer

from sendense import InvalidArgument
from sendense.cli.failures import ExitCode
from sendense.cli.state import err
from sendense.cli.text import plain


def check_can_ask(*, yes: bool) -> None:
    """Refuse, before anything is asked from the hub, what nobody can confirm. Raises InvalidArgument."""
    if not yes and not sys.stdin.isatty():
        raise InvalidArgument(
            "nobody can be asked, since standard input is no terminal: give --yes to go ahead",
            reason="CONFIRMATION_NEEDED",
        )


def ask(question: str, *, about: list[str] | None = None) -> None:
    """Show on standard error what it is about and ask. Raises typer.Exit when the answer is no."""
    console = err()
    for line in about or []:
        console.print(plain(line), soft_wrap=True)
    if not typer.confirm(plain(question), err=True):
        console.print("nothing was changed")
        raise typer.Exit(ExitCode.FAILED)
