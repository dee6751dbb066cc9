"""sendense disk: disks of jobs, their chains and change ids."""

from typing import Annotated

import typer

from sendense import ChainLayer
from sendense.cli import completion, text
from sendense.cli.job_tables import print_disks
from sendense.cli.options import (
    DiskArgument,
    DiskOfVmArgument,
    JobArgument,
    RepositoryChoice,
    RestorePointArgument,
    SiteOfVm,
)
from sendense.cli.output import print_facts, print_json, print_json_list, print_table
from sendense.cli.state import HubOption, JsonOption, connected, out
from sendense.cli.tables import Column, number, words

app = typer.Typer(help="Look at disks of jobs, their chains and change ids.")


@app.command("list")
def list_disks(
    context: typer.Context,
    of_job: Annotated[
        str,
        typer.Argument(
            metavar="JOB",
            help="Disks of this job.",
            show_default=False,
            autocompletion=completion.jobs,
        ),
    ] = "",
    job: Annotated[
        str, typer.Option(metavar="JOB", help="The same.", autocompletion=completion.jobs)
    ] = "",
    in_context: Annotated[
        str,
        typer.Option(
            "--context",
            metavar="CONTEXT",
            help="Disks of this context.",
            autocompletion=completion.contexts,
        ),
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


@app.command("show")
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
                "VMware key": text.disk_key(row.vmware_disk_key),
                "uuid": row.disk_uuid,
                "capacity": f"{text.size(row.capacity_bytes)} ({row.capacity_bytes} bytes)",
                "status": text.status(row.status),
                "error": text.problem(row),
                "type": text.backup_type(row.backup_type),
                "base": row.base_job_id,
                "read by": text.read_method(row.read_method),
                "because": row.read_reason,
                "sample": text.sampling(row.sampling) if row.HasField("sampling") else "",
                "change id": row.disk_change_id,
                "layer": row.qcow2_path,
                "digest": row.root_digest,
                "read": text.of_disk(
                    row, f"{text.size(row.bytes_read)} of {text.size(row.bytes_planned)}"
                ),
                "unchanged": text.size(row.bytes_unchanged) if row.bytes_unchanged else "",
                "sent": text.of_disk(row, text.size(row.bytes_transferred)),
                "stored": text.size(row.bytes_stored),
                "resumed": text.resumes(row),
                "completed": text.when(row.completed_at),
            }
        )
        out().print("\nchain, newest first")
        print_disks(list(found.chain))


@app.command("chain")
def show_chain(
    context: typer.Context,
    job: RestorePointArgument,
    disk: DiskArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the layers that a disk of a backup consists of, with their sizes, newest first."""
    with connected(context) as (client, state):
        found = client.get_chain(job, disk)
        if state.json:
            print_json(found)
            return
        print_table(
            (
                "Job",
                number("Disk", spare=4),
                "Type",
                Column("Created", spare=2),
                number("Capacity", spare=3),
                number("Stored"),
                Column("Layer", spare=5),
                words("Problem"),
            ),
            [_layer(layer) for layer in found.layers],
            empty="no layers",
        )
        layers = text.count(len(found.layers), "layer")
        damaged = sum(bool(layer.problem) for layer in found.layers)
        problems = f", {text.count(damaged, 'problem')}" if damaged else ""
        out().print(f"\n{layers}, {text.size(found.bytes_stored)} stored{problems}")


@app.command("change-id")
def show_change_id(
    context: typer.Context,
    vm: Annotated[
        str,
        typer.Argument(
            metavar="VM",
            help="Name, moref (vm-12) or instance uuid, as it was backed up.",
            autocompletion=completion.vms_backed_up,
        ),
    ],
    disk: DiskOfVmArgument,
    repository: RepositoryChoice = "",
    site: SiteOfVm = "",
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the change id that the next increment of a VM's disk would build on."""
    with connected(context) as (client, state):
        found = client.get_change_id(vm, disk, site=site, repository=repository)
        if state.json:
            print_json(found)
            return
        print_facts(
            {
                "change id": found.disk_change_id or "none, the disk was not tracked",
                "context": found.context_id,
                "job": found.job_id,
                "VMware key": text.disk_key(found.vmware_disk_key),
                "uuid": found.disk_uuid,
                "completed": text.when(found.completed_at),
            }
        )


def _layer(layer: ChainLayer) -> tuple[str, ...]:
    return (
        layer.job_id,
        str(layer.disk_index),
        text.backup_type(layer.backup_type),
        text.when(layer.created_at),
        text.size(layer.capacity_bytes),
        text.size(layer.bytes_stored),
        layer.qcow2_path,
        layer.problem,
    )
