"""sendense agent: the agents, one per site."""

import typer

from sendense import Agent
from sendense.cli import text
from sendense.cli.confirmation import ask, check_can_ask
from sendense.cli.options import SiteArgument, YesOption
from sendense.cli.output import print_facts, print_json, print_json_list, print_table
from sendense.cli.state import HubOption, JsonOption, State, connected, out
from sendense.cli.tables import Column, number, words

app = typer.Typer(help="Manage the agents, one per site.")


@app.command("list")
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
                    _connected(agent),
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


@app.command("show")
def show_agent(
    context: typer.Context,
    site: SiteArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the agent of one site."""
    with connected(context) as (client, state):
        _show(client.get_agent(site), state)


@app.command("drain")
def drain_agent(
    context: typer.Context,
    site: SiteArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let no new backup start at a site until it is resumed; running ones end as they would."""
    with connected(context) as (client, state):
        _show(client.drain_agent(site), state)


@app.command("resume")
def resume_agent(
    context: typer.Context,
    site: SiteArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let backups start at a site again."""
    with connected(context) as (client, state):
        _show(client.resume_agent(site), state)


@app.command("remove")
def remove_agent(
    context: typer.Context,
    site: SiteArgument,
    yes: YesOption = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget the agent of a site and its VMs; backups stay."""
    check_can_ask(yes=yes)
    with connected(context) as (client, state):
        if not yes:
            agent = client.get_agent(site)
            vms = text.count(agent.vm_count, "VM")
            ask(f"forget the agent of site {agent.site} and its {vms}? (backups stay)", state)
        removed = client.remove_agent(site)
        if state.json:
            print_json(removed)
        else:
            out().print(f"{text.plain(removed.site)}: removed", soft_wrap=True)


def _show(agent: Agent, state: State) -> None:
    if state.json:
        print_json(agent)
        return
    print_facts(
        {
            "site": agent.site,
            "connected": _connected(agent),
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


def _connected(agent: Agent) -> str:
    """ "yes", "no", and whether new backups are kept away."""
    connected = "yes" if agent.connected else "no"
    return f"{connected}, draining" if agent.draining else connected
