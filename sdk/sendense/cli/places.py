"""sendense context, disk and repository: where backups live."""

from typing import Annotated

import typer

from sendense import BackupContext, Repository
from sendense.cli import text
from sendense.cli.jobs import JobArgument, print_disks, print_jobs
from sendense.cli.output import print_facts, print_json, print_json_list, print_table
from sendense.cli.state import HubOption, JsonOption, connected, out
from sendense.cli.tables import Column, number, words

context_app = typer.Typer(help="Look at contexts: VMs in repositories.")
disk_app = typer.Typer(help="Look at disks of jobs and their chains.")
repository_app = typer.Typer(help="List and create repositories.")

RepositoryArgument = Annotated[str, typer.Argument(metavar="REPOSITORY", help="Name or id.")]
DiskArgument = Annotated[int, typer.Argument(metavar="DISK", min=0, help="Index of the disk.")]


@context_app.command("list")
def list_contexts(
    context: typer.Context,
    vm: Annotated[str, typer.Option(help="Only VMs of this name.")] = "",
    repository: Annotated[str, typer.Option(help="Only this repository.")] = "",
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """List contexts by VM name.

    Runs that neither completed nor failed were cancelled or are at work.
    """
    with connected(context) as (client, state):
        found = client.list_contexts(vm_name=vm, repository=repository)
        if state.json:
            print_json_list("contexts", found)
            return
        print_table(
            (
                "Context",
                words("VM"),
                words("Site", spare=1),
                words("Repository", spare=2),
                number("Runs"),
                number("Completed"),
                number("Failed"),
                Column("Last", spare=3),
                "Last at",
            ),
            [
                (
                    item.context_id,
                    item.vm_name,
                    item.site,
                    item.repository_name,
                    str(item.total_backups_run),
                    str(item.successful_backups),
                    str(item.failed_backups),
                    text.backup_type(item.last_backup_type),
                    text.when(item.last_backup_at),
                )
                for item in found
            ],
            empty="no contexts",
        )


@context_app.command("show")
def show_context(
    context: typer.Context,
    wanted: Annotated[str, typer.Argument(metavar="CONTEXT", help="Context id.")],
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one context and its jobs."""
    with connected(context) as (client, state):
        found = client.get_context(wanted)
        if state.json:
            print_json(found)
            return
        print_facts(_context_facts(found))
        out().print()
        print_jobs(list(client.list_backups(context_id=found.context_id)))


@disk_app.command("list")
def list_disks(
    context: typer.Context,
    of_job: Annotated[
        str, typer.Argument(metavar="JOB", help="Disks of this job.", show_default=False)
    ] = "",
    job: Annotated[str, typer.Option(metavar="JOB", help="The same.")] = "",
    in_context: Annotated[
        str, typer.Option("--context", metavar="CONTEXT", help="Disks of this context.")
    ] = "",
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the disks of a job or of a context, newest job first."""
    if [of_job, job, in_context].count("") != 2:
        raise typer.BadParameter("give either a job or --context")
    with connected(context) as (client, state):
        found = client.list_disks(job_id=of_job or job, context_id=in_context)
        if state.json:
            print_json_list("disks", found)
        else:
            print_disks(list(found))


@disk_app.command("show")
def show_disk(
    context: typer.Context,
    job: JobArgument,
    disk: DiskArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one disk of a job, and its chain down to the full."""
    with connected(context) as (client, state):
        found = client.get_disk(job, disk)
        if state.json:
            print_json(found)
            return
        row = found.disk
        print_facts(
            {
                "job": row.job_id,
                "disk": str(row.disk_index),
                "label": row.label,
                "VMware key": str(row.vmware_disk_key),
                "uuid": row.disk_uuid,
                "capacity": f"{text.size(row.capacity_bytes)} ({row.capacity_bytes} bytes)",
                "status": text.status(row.status),
                "error": text.problem(row),
                "type": text.backup_type(row.backup_type),
                "base": row.base_job_id,
                "change id": row.disk_change_id,
                "layer": row.qcow2_path,
                "digest": row.root_digest,
                "read": f"{text.size(row.bytes_read)} of {text.size(row.bytes_planned)}",
                "sent": text.size(row.bytes_transferred),
                "stored": text.size(row.bytes_stored),
                "completed": text.when(row.completed_at),
            }
        )
        out().print("\nchain, newest first")
        print_disks(list(found.chain))


@repository_app.command("list")
def list_repositories(
    context: typer.Context, hub: HubOption = None, as_json: JsonOption = False
) -> None:
    """List repositories by name."""
    with connected(context) as (client, state):
        found = client.list_repositories()
        if state.json:
            print_json_list("repositories", found)
            return
        print_table(
            (
                words("Name"),
                "Default",
                words("Path"),
                number("Free"),
                number("Of"),
                words("Problem"),
            ),
            [
                (
                    item.name,
                    "yes" if item.is_default else "",
                    item.path,
                    text.size(item.free_bytes) if item.total_bytes else "",
                    text.size(item.total_bytes) if item.total_bytes else "",
                    item.problem,
                )
                for item in found
            ],
            empty="no repositories",
        )


@repository_app.command("create")
def create_repository(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, . - and _.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Absolute path, on the hub.")],
    default: Annotated[
        bool, typer.Option("--default", help="Use it where a request names none.")
    ] = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a folder on the hub a repository."""
    with connected(context) as (client, state):
        made = client.create_repository(name, path, make_default=default)
        if state.json:
            print_json(made)
        else:
            print_facts(_repository_facts(made))


@repository_app.command("show")
def show_repository(
    context: typer.Context,
    repository: RepositoryArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one repository."""
    with connected(context) as (client, state):
        found = client.get_repository(repository)
        if state.json:
            print_json(found)
        else:
            print_facts(_repository_facts(found))


def _repository_facts(item: Repository) -> dict[str, str]:
    space = f"{text.size(item.free_bytes)} of {text.size(item.total_bytes)}"
    return {
        "repository": item.name,
        "id": item.repository_id,
        "path": item.path,
        "default": "yes" if item.is_default else "no",
        "created": text.when(item.created_at),
        "free": space if item.total_bytes else "",
        "problem": item.problem,
    }


def _context_facts(item: BackupContext) -> dict[str, str]:
    return {
        "context": item.context_id,
        "VM": item.vm_name,
        "moref": item.vmware_vm_id,
        "instance uuid": item.instance_uuid,
        "site": item.site,
        "repository": item.repository_name,
        "backups": f"{item.total_backups_run} run, {item.successful_backups} completed, "
        f"{item.failed_backups} failed",
        "last backup": item.last_backup_id,
        "last type": text.backup_type(item.last_backup_type),
        "last at": text.when(item.last_backup_at),
        "created": text.when(item.created_at),
    }
