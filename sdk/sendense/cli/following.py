"""Following a job from the command line, until it ended or the person leaves."""

from collections.abc import Callable

import typer

from sendense import Backup, Client
from sendense.cli.failures import ExitCode
from sendense.cli.progress import watch_job
from sendense.cli.state import err
from sendense.cli.text import plain


def follow(client: Client, job_id: str, on_state: Callable[[Backup], None] | None = None) -> Backup:
    """Show a job on standard error until it ended; Ctrl-C leaves the job alone."""
    try:
        return watch_job(client, job_id, err(), on_state)
    except KeyboardInterrupt:
        name = plain(job_id)
        err().print(
            f"job {name} goes on; cancel it with: sendense job cancel {name}", soft_wrap=True
        )
        raise typer.Exit(ExitCode.INTERRUPTED) from None
