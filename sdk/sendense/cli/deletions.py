"""sendense job delete, sendense context delete: backups that go for good."""

from typing import Annotated, Final

import typer

from sendense import Client, DeletedBackups, FailedPrecondition
from sendense.cli import text
from sendense.cli.confirmation import ask, check_can_ask
from sendense.cli.options import ContextArgument, JobArgument, YesOption
from sendense.cli.output import print_json
from sendense.cli.state import HubOption, JsonOption, State, connected, err, out

# What the hub cut off: metadata of an error are short.
_CUT: Final = "…"


def delete_job(
    context: typer.Context,
    job: JobArgument,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Delete the jobs that build on it, too.")
    ] = False,
    yes: YesOption = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a job that ended, with its files.

    Refused when later jobs build on it, unless they go along (--cascade).
    """
    check_can_ask(yes=yes)
    with connected(context) as (client, state):
        if yes:
            deleted = client.delete_backup(job, cascade=cascade)
        else:
            deleted = _ask(client, state, job, cascade)
        _tell(deleted, state)


def delete_context(
    context: typer.Context,
    wanted: ContextArgument,
    yes: YesOption = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a context with all its jobs and their files."""
    check_can_ask(yes=yes)
    with connected(context) as (client, state):
        if not yes:
            found = client.get_context(wanted)
            points = text.count(found.restore_point_count, "restore point")
            ask(
                f"delete all backups of VM {found.vm_name} in repository {found.repository_name} "
                f"({points}, {text.size(found.bytes_stored)})?",
                state,
            )
        _tell(client.delete_context(wanted), state)


def _ask(client: Client, state: State, job_id: str, cascade: bool) -> DeletedBackups:
    """Delete what the person agrees to: the job, and then perhaps what builds on it."""
    job = client.get_backup(job_id)
    ask(
        f"delete backup {job.job_id} of VM {job.vm_name} ({text.status(job.status)}, "
        f"created {text.when(job.created_at)}, {text.size(job.bytes_stored)})?",
        state,
    )
    try:
        return client.delete_backup(job_id)
    except FailedPrecondition as refusal:
        if not cascade or refusal.reason != "JOB_HAS_DEPENDANTS":
            raise
        dependants = refusal.metadata.get("dependants", "").split(",")
    some = dependants[-1].endswith(_CUT)
    known = dependants[:-1] if some else dependants
    ask(
        f"delete {'all of these' if len(known) > 1 or some else 'it'}, too?",
        state,
        about=["these backups build on it:", *known, *(["and more"] if some else [])],
    )
    return client.delete_backup(job_id, cascade=True)


def _tell(deleted: DeletedBackups, state: State) -> None:
    if state.json:
        print_json(deleted)
        return
    for job_id in deleted.job_ids:
        out().print(f"{text.plain(job_id)}: deleted", soft_wrap=True)
    count = text.count(len(deleted.job_ids), "backup")
    err().print(f"{count} deleted, {text.size(deleted.bytes_stored)}")
    if deleted.pending_job_ids:
        waiting = ", ".join(deleted.pending_job_ids)
        err().print(
            f"files that could not be removed now: of {text.plain(waiting)}; the hub tries again",
            soft_wrap=True,
        )
