"""Following a job and a restore with a live display; used by the commands and by programs."""

from collections.abc import Callable

from rich.console import Console

from sendense import Backup, BackupStatus, Client, RestoreProgress
from sendense.cli import text
from sendense.cli.transfers import Transfers, show_transfers


def watch_job(
    client: Client,
    job_id: str,
    console: Console,
    on_state: Callable[[Backup], None] | None = None,
) -> Backup:
    """Show a job until it ended, and return its last state, whatever that is.

    Bars per disk when `console` is a terminal, plain lines otherwise.
    `on_state` is called with every state. Raises what `Client.watch` raises.
    """
    job = Backup()
    told: set[str] = set()
    with show_transfers(console, moved_label="sent") as transfers:
        for job in client.watch(job_id):
            if on_state is not None:
                on_state(job)
            _tell(job, told, transfers)
            for disk in job.disks:
                transfers.update(
                    disk.disk_index,
                    f"disk {disk.disk_index} ({disk.label})",
                    total=disk.bytes_planned,
                    done=disk.bytes_read,
                    moved=disk.bytes_transferred,
                    ended=BackupStatus(job.status).ended,
                )
        transfers.say(outcome(job))
    return job


def restore_callback(transfers: Transfers) -> Callable[[RestoreProgress], None]:
    """A `progress` callback for `Client.restore_disk` that shows the restore."""

    def show(progress: RestoreProgress) -> None:
        transfers.update(
            progress.disk_index,
            f"disk {progress.disk_index} ({progress.disk_label})",
            total=progress.total_bytes if progress.total_known else None,
            done=progress.done_bytes,
            moved=progress.payload_done_bytes,
        )

    return show


def outcome(job: Backup) -> str:
    """One sentence about a job's state."""
    sentence = f"{job.job_id}: {text.state(job)}"
    if BackupStatus(job.status) is BackupStatus.COMPLETED:
        took = text.elapsed(job)
        moved = f"{text.size(job.bytes_read)} read, {text.size(job.bytes_transferred)} sent, "
        between = "," if job.warnings and took else ""
        sentence += (
            f"{between}{f' in {took}' if took else ''}, {text.backup_type(job.backup_type)}, "
            f"{text.of_job(job, moved)}{text.size(job.bytes_stored)} stored"
        )
    problem = text.problem(job)
    return f"{sentence}: {problem}" if problem else sentence


def _tell(job: Backup, told: set[str], transfers: Transfers) -> None:
    """Say each state and each warning once."""
    news = [] if BackupStatus(job.status).ended else [f"{job.job_id}: {text.state(job)}"]
    for warning in job.warnings:
        news.append(f"warning: {text.warning(warning)}")
    for line in news:
        if line not in told:
            told.add(line)
            transfers.say(line)
