"""Following a job from the command line, until it ended or the person leaves."""

from collections.abc import Callable

import typer

from sendense import Backup, BackupStatus, Client
from sendense.cli.failures import ExitCode
from sendense.cli.output import print_json
from sendense.cli.progress import watch_job
from sendense.cli.state import State, err, out
from sendense.cli.text import plain
from sendense.cli.text import state as state_of


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


def tell_started(client: Client, job: Backup, state: State, *, wait: bool) -> None:
    """Tell of a job that was just started; with `wait` follow it and fail when it does."""
    if wait:
        err().print(f"{plain(job.job_id)}: started")
        job = follow(client, job.job_id)
        if state.json:
            print_json(job)
        if BackupStatus(job.status) is not BackupStatus.COMPLETED:
            raise typer.Exit(ExitCode.FAILED)
    elif state.json:
        print_json(job)
    else:
        out().print(plain(job.job_id), soft_wrap=True)
        if job.queue_position:
            err().print(plain(state_of(job)), soft_wrap=True)
        err().print(f"follow it with: sendense job watch {plain(job.job_id)}", soft_wrap=True)
