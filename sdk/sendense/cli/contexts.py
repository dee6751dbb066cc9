"""sendense context: VMs in repositories."""

import typer

from sendense import BackupContext
from sendense.cli import text
from sendense.cli.job_tables import print_jobs
from sendense.cli.options import ContextArgument, RepositoryFilter, SiteFilter, VmFilter
from sendense.cli.output import print_facts, print_json, print_json_list, print_table
from sendense.cli.state import HubOption, JsonOption, connected, out
from sendense.cli.tables import Column, number, words

app = typer.Typer(help="Look at contexts, VMs in repositories, and delete them.")


@app.command("list")
def list_contexts(
    context: typer.Context,
    vm: VmFilter = "",
    repository: RepositoryFilter = "",
    site: SiteFilter = "",
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """List contexts by VM name.

    Runs that neither completed nor failed were cancelled or are at work.
    """
    with connected(context) as (client, state):
        found = client.list_contexts(vm_name=vm, repository=repository, site=site)
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
                number("Restore points", spare=4),
                number("Stored"),
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
                    str(item.restore_point_count),
                    text.size(item.bytes_stored),
                    text.backup_type(item.last_backup_type),
                    text.when(item.last_backup_at),
                )
                for item in found
            ],
            empty="no contexts",
        )


@app.command("show")
def show_context(
    context: typer.Context,
    wanted: ContextArgument,
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
        "restore points": str(item.restore_point_count),
        "stored": text.size(item.bytes_stored),
        "last backup": item.last_backup_id,
        "last type": text.backup_type(item.last_backup_type),
        "last at": text.when(item.last_backup_at),
        "created": text.when(item.created_at),
        "tracking": _tracking(item),
    }


def _tracking(item: BackupContext) -> str:
    if not item.HasField("tracking_distrusted_since"):
        return ""
    return (
        f"distrusted since {text.when(item.tracking_distrusted_since)}: "
        f"{item.tracking_distrusted_job_id} found changes that it had not told of; "
        "the next backup compares every disk"
    )
