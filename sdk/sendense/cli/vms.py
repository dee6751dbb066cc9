"""sendense vm: what the sites report."""

from typing import Annotated

import typer

from sendense import Protection, VirtualMachine
from sendense.cli import completion, text
from sendense.cli.options import SiteFilter
from sendense.cli.output import print_json_list, print_table
from sendense.cli.state import HubOption, JsonOption, connected
from sendense.cli.tables import Column, number, words

app = typer.Typer(help="Look at the VMs of the sites.")


@app.callback()
def vm_group() -> None:
    """Look at the VMs of the sites."""


@app.command("list")
def list_vms(
    context: typer.Context,
    site: SiteFilter = "",
    name: Annotated[
        str,
        typer.Option(help="Only VMs of this name.", autocompletion=completion.virtual_machines),
    ] = "",
    protected: Annotated[
        bool | None,
        typer.Option(
            "--protected/--not-protected",
            help="Only VMs with a restore point, or only those without one.",
            show_default=False,
        ),
    ] = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """List VMs as their agents last reported them, with their last backup."""
    wanted = Protection.UNSPECIFIED
    if protected is not None:
        wanted = Protection.PROTECTED if protected else Protection.NOT_PROTECTED
    with connected(context) as (client, state):
        found = client.list_virtual_machines(site=site, name=name, protection=wanted)
        if state.json:
            print_json_list("virtual_machines", found)
            return
        print_table(
            (
                words("Name"),
                words("Site"),
                Column("Moref", spare=2),
                Column("Power", spare=3),
                number("Disks", spare=4),
                number("Capacity", spare=1),
                Column("Tracking", spare=5),
                "Last backup",
                words("Remarks"),
            ),
            [
                (
                    vm.name,
                    vm.site,
                    vm.vmware_vm_id,
                    vm.power_state.removeprefix("powered").lower(),
                    str(len(vm.disks)),
                    text.size(sum(disk.capacity_bytes for disk in vm.disks)),
                    "on" if vm.change_tracking_enabled else "off",
                    text.when(vm.last_backup_at) if vm.is_protected else "none",
                    _remarks(vm),
                )
                for vm in found
            ],
            empty="no VMs",
        )


def _remarks(vm: VirtualMachine) -> str:
    remarks = [] if vm.agent_connected else ["agent away"]
    if vm.snapshot_count:
        remarks.append(text.count(vm.snapshot_count, "snapshot"))
    remarks += [f"{alarm.message} ({alarm.code})" for alarm in vm.alarms]
    remarks += [
        f"{disk.label}: {disk.not_protectable_reason}"
        for disk in vm.disks
        if disk.not_protectable_reason
    ]
    return "; ".join(remarks)
