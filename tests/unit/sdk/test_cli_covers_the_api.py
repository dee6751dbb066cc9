"""Every public RPC is reachable from the command line."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from sendense.cli.main import app, run
from tests.unit.sdk.cli_world import JOB_ID, furnish, job
from tests.unit.sdk.client_hub import ClientHub, draw, stored
from tests.unit.sdk.hub_services import public_rpcs

README = Path(__file__).parents[3] / "sdk" / "README.md"
COMMANDS = {
    "CancelBackup": f"job cancel {JOB_ID}",
    "CreateRepository": "repository create second /srv/second",
    "DeleteBackup": f"job delete {JOB_ID} --yes",
    "DeleteContext": "context delete ctx-1 --yes",
    "DeleteRepository": "repository delete default --yes",
    "DisableRepository": "repository disable default",
    "DrainAgent": "agent drain site-1",
    "EnableRepository": "repository enable default",
    "GetAgent": "agent show site-1",
    "GetBackup": f"job show {JOB_ID}",
    "GetChain": f"disk chain {JOB_ID} 0",
    "GetChangeId": "disk change-id pgtest1 0",
    "GetContext": "context show ctx-1",
    "GetDisk": f"disk show {JOB_ID} 0",
    "GetRepository": "repository show default",
    "GetStatistics": "statistics",
    "ListAgents": "agent list",
    "ListBackups": "job list",
    "ListContexts": "context list",
    "ListDisks": f"disk list {JOB_ID}",
    "ListRepositories": "repository list",
    "ListVirtualMachines": "vm list",
    "RecoveryReport": "hub recovery",
    "RemoveAgent": "agent remove site-1 --yes",
    "RenameRepository": "repository rename default first",
    "RestoreDisk": f"restore {JOB_ID} 0 --output disk.raw",
    "ResumeAgent": "agent resume site-1",
    "RetryBackup": f"job retry {JOB_ID}",
    "SetDefaultRepository": "repository set-default default",
    "StartBackup": "backup start pgtest1",
    "TestRepository": "repository test default",
    "WatchBackup": f"job watch {JOB_ID}",
}


def test_table_names_every_public_rpc():
    assert sorted(COMMANDS) == public_rpcs()


@pytest.mark.parametrize("rpc", public_rpcs())
@pytest.mark.parametrize("as_json", [False, True], ids=["people", "json"])
def test_rpc_is_reachable_from_the_command_line(
    rpc: str, as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ClientHub() as hub:
        furnish(hub.state)
        hub.state.watches = [[job()]]
        hub.state.restore = lambda: stored(draw("A"), job_id=JOB_ID)
        words = ["--hub", hub.address, *shlex.split(COMMANDS[rpc]), *["--json"] * as_json]
        assert run(words) == 0
        assert rpc in [item.rpc for item in hub.state.seen]


@pytest.mark.parametrize("rpc", public_rpcs())
def test_command_has_help(rpc: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(COMMANDS[rpc])
    named = words[:1] if words[0] in ("restore", "statistics") else words[:2]
    assert run([*named, "--help"]) == 0
    assert f"Usage: sendense {' '.join(named)} " in capsys.readouterr().out


def test_readme_lists_every_command_and_no_other():
    listed = set()
    for line in README.read_text().splitlines():
        match = re.match(r"sendense ([a-z]+) ([a-z|-]+)?", line)
        if match is None:
            continue
        group, names = match.groups()
        listed |= {f"{group} {name}" for name in names.split("|")} if names else {group}
    program = typer.main.get_command(app)
    there = set()
    for group, command in program.commands.items():
        names = getattr(command, "commands", None)
        there |= {f"{group} {name}" for name in names} if names else {group}
    assert listed == there
