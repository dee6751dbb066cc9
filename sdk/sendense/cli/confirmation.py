"""Asking before something goes for good."""

import sys

import typer

from sendense import InvalidArgument, SendenseError
from sendense.cli.failures import ExitCode, report, report_interrupted
from sendense.cli.state import State, err
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


def ask(question: str, state: State, *, about: list[str] | None = None) -> None:
    """Show on standard error what it is about and ask.

    Raises typer.Exit when the answer is no or there is none: it was told then,
    with --json as the object that every error is.
    """
    console = err()
    for line in about or []:
        console.print(plain(line), soft_wrap=True)
    # Not typer.confirm: it writes a blank to standard output, where only results go.
    console.print(f"{plain(question)} [y/N]: ", end="", soft_wrap=True)
    answer = sys.stdin.readline()
    if not answer:
        console.print()
        raise typer.Exit(report_interrupted("interrupted; nothing was changed", as_json=state.json))
    if answer.strip().lower() not in ("y", "yes"):
        if state.json:
            refusal = SendenseError("nothing was changed", reason="NOT_CONFIRMED")
            raise typer.Exit(report(refusal, as_json=True))
        console.print("nothing was changed")
        raise typer.Exit(ExitCode.FAILED)
