"""sendense vm and agent: what the sites report."""

from typing import Annotated

import typer

from sendense import VirtualMachine
from sendense.cli import text
from sendense.cli.output import print_facts, print_json, print_json_list, print_table
from sendense.cli.state import HubOption, JsonOption, connected
from sendense.cli.tables import Column, number, words

vm_app = typer.Typer(help="Look at the VMs of the sites.")
agent_app = typer.Typer(help="Look at the agents, one per site.")


@vm_app.callback()
def vm_group() -> None:
    """Look at the VMs of the sites."""


@vm_app.command("list")
def list_vms(
    context: typer.Context,
    site: Annotated[str, typer.Option(help="Only this site.")] = "",
    name: Annotated[str, typer.Option(help="Only VMs of this name.")] = "",
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """List VMs as their agents last reported them."""
    with connected(context) as (client, state):
        found = client.list_virtual_machines(site=site, name=name)
        if state.json:
            print_json_list("virtual_machines", found)
            return
        print_table(
            (
                words("Name"),
                words("Site"),
                "Moref",
                "Power",
                number("Disks"),
                number("Capacity"),
                "Tracking",
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
                    _remarks(vm),
                )
                for vm in found
            ],
            empty="no VMs",
        )


@agent_app.command("list")
def list_agents(context: typer.Context, hub: HubOption = None, as_json: JsonOption = False) -> None:
    """List agents by site."""
    with connected(context) as (client, state):
        found = client.list_agents()
        if state.json:
            print_json_list("agents", found)
            return
        print_table(
            (
                words("Site"),
                "Connected",
                words("Host", spare=1),
                Column("Version", spare=2),
                words("vSphere"),
                number("VMs"),
                number("Jobs"),
                "Last seen",
            ),
            [
                (
                    agent.site,
                    "yes" if agent.connected else "no",
                    agent.hostname,
                    agent.version,
                    f"{agent.vsphere.full_name} at {agent.vsphere.address}",
                    str(agent.vm_count),
                    str(agent.running_jobs),
                    text.when(agent.last_seen_at),
                )
                for agent in found
            ],
            empty="no agents",
        )


@agent_app.command("show")
def show_agent(
    context: typer.Context,
    site: Annotated[str, typer.Argument(metavar="SITE", help="Name of the site.")],
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the agent of one site."""
    with connected(context) as (client, state):
        agent = client.get_agent(site)
        if state.json:
            print_json(agent)
            return
        print_facts(
            {
                "site": agent.site,
                "connected": "yes" if agent.connected else "no",
                "since": text.when(agent.connected_since),
                "last seen": text.when(agent.last_seen_at),
                "host": agent.hostname,
                "version": agent.version,
                "vSphere": agent.vsphere.full_name,
                "address": agent.vsphere.address,
                "VMs": str(agent.vm_count),
                "running jobs": str(agent.running_jobs),
            }
        )


def _remarks(vm: VirtualMachine) -> str:
    remarks = [] if vm.agent_connected else ["agent away"]
    if vm.snapshot_count:
        remarks.append(text.count(vm.snapshot_count, "snapshot"))
    remarks += [
        f"{disk.label}: {disk.not_protectable_reason}"
        for disk in vm.disks
        if disk.not_protectable_reason
    ]
    return "; ".join(remarks)
