"""Asking before something goes for good."""

import sys

import typer

from sendense import InvalidArgument
from sendense.cli.failures import ExitCode
from sendense.cli.state import err
from sendense.cli.text import plain


def check_can_ask(*, yes: bool) -> None:
    """Refuse, before anything is asked from the hub, what nobody can confirm. Raises InvalidArgument."""
    # A program may have been started without any standard input: there is none to ask then.
    can_ask = sys.stdin is not None and sys.stdin.isatty()
    if not yes and not can_ask:
        raise InvalidArgument(
            "nobody can be asked, since standard input is no terminal: give --yes to go ahead",
            reason="CONFIRMATION_NEEDED",
        )


def ask(question: str, *, about: list[str] | None = None) -> None:
    """Show on standard error what it is about and ask.

    Raises typer.Exit when the answer is no, typer.Abort when there is none.
    """
    console = err()
    for line in about or []:
        console.print(plain(line), soft_wrap=True)
    # Not typer.confirm: it writes a blank to standard output, where only results go.
    console.print(f"{plain(question)} [y/N]: ", end="", soft_wrap=True)
    answer = sys.stdin.readline()
    if not answer:
        console.print()
        raise typer.Abort
    if answer.strip().lower() not in ("y", "yes"):
        console.print("nothing was changed")
        raise typer.Exit(ExitCode.FAILED)
