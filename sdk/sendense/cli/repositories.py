"""sendense repository: the folders on the hub that hold the layers."""

from typing import Annotated

import typer

from sendense import Repository
from sendense.cli import text
from sendense.cli.confirmation import ask, check_can_ask
from sendense.cli.failures import ExitCode
from sendense.cli.options import RepositoryArgument, YesOption
from sendense.cli.output import print_facts, print_json, print_json_list, print_table
from sendense.cli.state import HubOption, JsonOption, State, connected, err, out
from sendense.cli.tables import number, words

app = typer.Typer(help="Manage repositories: where backups are stored.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, . - and _.")]


@app.command("list")
def list_repositories(
    context: typer.Context, hub: HubOption = None, as_json: JsonOption = False
) -> None:
    """List repositories by name, with what is in them."""
    with connected(context) as (client, state):
        found = client.list_repositories()
        if state.json:
            print_json_list("repositories", found)
            return
        print_table(
            (
                words("Name"),
                "State",
                words("Path", spare=1),
                number("VMs", spare=4),
                number("Restore points", spare=3),
                number("Stored"),
                number("Free"),
                number("Of", spare=2),
                words("Problem"),
            ),
            [
                (
                    item.name,
                    _state(item),
                    item.path,
                    str(item.context_count),
                    str(item.restore_point_count),
                    text.size(item.bytes_stored),
                    text.size(item.free_bytes) if item.total_bytes else "",
                    text.size(item.total_bytes) if item.total_bytes else "",
                    item.problem,
                )
                for item in found
            ],
            empty="no repositories",
        )


@app.command("show")
def show_repository(
    context: typer.Context,
    repository: RepositoryArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one repository."""
    with connected(context) as (client, state):
        _show(client.get_repository(repository), state)


@app.command("create")
def create_repository(
    context: typer.Context,
    name: NameArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Absolute path, on the hub.")],
    default: Annotated[
        bool, typer.Option("--default", help="Use it where a request names none.")
    ] = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a folder on the hub a repository."""
    with connected(context) as (client, state):
        _show(client.create_repository(name, path, make_default=default), state)


@app.command("test")
def try_repository(
    context: typer.Context,
    repository: RepositoryArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try whether a repository can be written and read; exit code 1 when it cannot."""
    with connected(context) as (client, state):
        answer = client.test_repository(repository)
        if state.json:
            print_json(answer)
        else:
            print_table(
                ("Check", "Passed", words("Found")),
                [
                    (check.name, "yes" if check.passed else "no", check.message)
                    for check in answer.checks
                ],
                empty="no checks were made",
            )
        if not answer.passed:
            raise typer.Exit(ExitCode.FAILED)


@app.command("rename")
def rename_repository(
    context: typer.Context,
    repository: RepositoryArgument,
    new_name: NameArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a repository another name; its folder stays where it is."""
    with connected(context) as (client, state):
        _show(client.rename_repository(repository, new_name), state)


@app.command("set-default")
def set_default_repository(
    context: typer.Context,
    repository: RepositoryArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Use a repository where a request names none."""
    with connected(context) as (client, state):
        _show(client.set_default_repository(repository), state)


@app.command("disable")
def disable_repository(
    context: typer.Context,
    repository: RepositoryArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let no new backup start there; restores and deletions work."""
    with connected(context) as (client, state):
        disabled = client.disable_repository(repository)
        _show(disabled, state)
        if disabled.is_default and not state.json:
            err().print(
                "remark: it is the default: backups that name no repository are refused until "
                "another one is (sendense repository set-default)",
                soft_wrap=True,
            )


@app.command("enable")
def enable_repository(
    context: typer.Context,
    repository: RepositoryArgument,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let backups start there again."""
    with connected(context) as (client, state):
        _show(client.enable_repository(repository), state)


@app.command("delete")
def delete_repository(
    context: typer.Context,
    repository: RepositoryArgument,
    yes: YesOption = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget a repository that has no backups, and take the hub's mark out of its folder."""
    check_can_ask(yes=yes)
    with connected(context) as (client, state):
        if not yes:
            found = client.get_repository(repository)
            ask(f"delete repository {found.name} at {found.path}?", state)
        deleted = client.delete_repository(repository)
        if state.json:
            print_json(deleted)
        else:
            out().print(f"{text.plain(deleted.name)}: deleted", soft_wrap=True)
            if deleted.problem:
                err().print(f"remark: {text.plain(deleted.problem)}", soft_wrap=True)


def _show(item: Repository, state: State) -> None:
    if state.json:
        print_json(item)
        return
    space = f"{text.size(item.free_bytes)} of {text.size(item.total_bytes)}"
    print_facts(
        {
            "repository": item.name,
            "id": item.repository_id,
            "path": item.path,
            "state": _state(item),
            "created": text.when(item.created_at),
            "VMs": str(item.context_count),
            "restore points": str(item.restore_point_count),
            "stored": text.size(item.bytes_stored),
            "free": space if item.total_bytes else "",
            "problem": item.problem,
        }
    )


def _state(item: Repository) -> str:
    """ "default", "disabled", both, or "enabled"."""
    facts = ["default"] * item.is_default + ["disabled"] * item.disabled
    return ", ".join(facts) or "enabled"
