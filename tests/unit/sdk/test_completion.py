"""What the shell offers: commands, and names that the hub is asked for."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from sendense.cli.main import run
from sendense.v1 import backup_pb2, context_pb2, inventory_pb2, repository_pb2
from tests.unit.sdk.cli_world import JOB_ID, furnish
from tests.unit.sdk.client_hub import ClientHub

BIN = Path(sys.executable).parent
SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def hub() -> Iterator[ClientHub]:
    with ClientHub() as hub:
        furnish(hub.state)
        yield hub


def environment(hub: ClientHub | str, typed: str, shell: str = "bash") -> dict[str, str]:
    """What the shell's script tells the command of a line that ends where the cursor is."""
    words = typed.split(" ")
    return {
        "SENDENSE_HUB": hub if isinstance(hub, str) else hub.address,
        "_SENDENSE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }


def completed(hub: ClientHub | str, typed: str, shell: str = "bash") -> tuple[str, str]:
    """What the real command answers the shell's script."""
    done = subprocess.run(
        [BIN / "sendense"],
        env=os.environ | environment(hub, typed, shell),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    return done.stdout, done.stderr


Asked = Callable[[ClientHub | str, str, str], str]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Asked:
    """What the command answers a shell's script, asked in this process."""

    def ask(hub: ClientHub | str, typed: str, shell: str) -> str:
        for name, value in environment(hub, typed, shell).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            run([])
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        return out

    return ask


@pytest.fixture
def offers(asked: Asked) -> Callable[[ClientHub | str, str], list[str]]:
    """The lines that the command offers to bash."""
    return lambda hub, typed: [line for line in asked(hub, typed, "bash").splitlines() if line]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_is_offered_the_commands_and_the_jobs(hub, asked, shell):
    commands = asked(hub, "sendense job ", shell)
    for command in ("list", "show", "watch", "cancel", "retry", "delete"):
        assert command in commands
    assert JOB_ID in asked(hub, "sendense job show ", shell)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("sendense job show ", [JOB_ID]),
        ("sendense job show backup-", [JOB_ID]),
        ("sendense job show nothing-", []),
        ("sendense job list --context ", ["ctx-1"]),
        ("sendense job list --repository ", ["default"]),
        ("sendense job list --vm ", ["pgtest1"]),
        ("sendense job list --status c", ["completed", "cancelled"]),
        ("sendense job delete ", [JOB_ID]),
        ("sendense context show ", ["ctx-1"]),
        ("sendense context delete ", ["ctx-1"]),
        ("sendense disk list ", [JOB_ID]),
        (f"sendense disk show {JOB_ID} ", ["0"]),
        (f"sendense restore {JOB_ID} ", ["0"]),
        ("sendense repository show d", ["default"]),
        ("sendense agent drain ", ["site-1"]),
        ("sendense vm list --site ", ["site-1"]),
        ("sendense vm list --name ", ["pgtest1"]),
        ("sendense backup start ", ["pgtest1"]),
        ("sendense backup start pgtest1 --repository ", ["default"]),
        ("sendense disk change-id ", ["pgtest1"]),
        ("sendense disk change-id pgtest1 ", ["0"]),
        ("sendense disk change-id --site site-1 pgtest1 ", ["0"]),
        ("sendense disk change-id --site site-2 pgtest1 ", []),
        ("sendense statistics --repository ", ["default"]),
    ],
)
def test_names_and_ids_are_offered_where_they_are_needed(hub, offers, typed, expected):
    assert offers(hub, typed) == expected


@pytest.mark.parametrize(
    ("typed", "states"),
    [
        ("sendense job watch ", [2, 1]),
        ("sendense job cancel ", [2, 1]),
        ("sendense job retry ", [4, 5]),
        ("sendense restore ", [3]),
        ("sendense disk chain ", [3]),
    ],
)
def test_jobs_are_offered_that_the_command_can_take(hub, offers, typed, states):
    assert offers(hub, typed) == [JOB_ID]
    assert [request.status for request in hub.state.requests("ListBackups")] == states


def test_disks_of_a_vm_are_those_of_its_last_backup(hub, offers):
    hub.state.backups[0].disks.add(disk_index=2)
    assert offers(hub, "sendense disk change-id --repository default pgtest1 ") == ["0", "2"]
    (request,) = hub.state.requests("ListBackups")
    assert (request.vm_name, request.repository, request.status) == ("pgtest1", "default", 3)


def test_hub_that_was_named_on_the_line_is_asked(hub, offers):
    typed = f"sendense --hub {hub.address} agent show "
    assert offers("127.0.0.1:1", typed) == ["site-1"]


def test_long_lists_are_asked_for_one_page(hub, offers):
    hub.state.backups = [backup_pb2.Backup(job_id=f"job-{n}") for n in range(1000)]
    assert len(offers(hub, "sendense job show ")) == 200
    assert len(hub.state.requests("ListBackups")) == 1


def test_words_that_a_shell_would_obey_are_not_offered(hub, offers):
    names = [
        *("web-1", "Größe.2", "数据库", "a_b@c"),
        *("$(reboot)", "`id`", "a b", "a;b", "-rf", "~root", "a'b", 'a"b', "x\ny", "a|b", "*", ""),
    ]
    hub.state.virtual_machines = [inventory_pb2.VirtualMachine(name=name) for name in names]
    assert offers(hub, "sendense backup start ") == names[:4]


def test_words_are_offered_once(hub, offers):
    hub.state.contexts = [
        context_pb2.BackupContext(context_id=f"c-{n}", vm_name="twin") for n in range(3)
    ]
    assert offers(hub, "sendense job list --vm ") == ["twin"]


@pytest.mark.parametrize("failure", [grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND])
def test_errors_of_the_hub_are_silent(hub, offers, failure):
    hub.state.failures["ListBackups"] = [failure]
    assert offers(hub, "sendense job show ") == []
    assert len(hub.state.requests("ListBackups")) == 1


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no such host", "nowhere.invalid:1"])
def test_hub_that_is_away_is_silent(offers, address):
    assert offers(address, "sendense job show ") == []


def test_hub_that_does_not_answer_is_left_alone(hub):
    hub.state.hold.add("ListBackups")
    assert completed(hub, "sendense job show ") == ("\n", "")
    # The command ended while its request was held: it waits no longer than its deadline.
    (seen,) = hub.state.seen
    assert not hub.state.released.is_set()
    assert seen.deadline_s <= 1


@pytest.mark.parametrize("shell", SHELLS)
def test_script_of_every_shell_calls_the_command(monkeypatch, capsys, shell):
    """Without the shell around the command being looked for."""
    monkeypatch.setenv("_SENDENSE_COMPLETE", f"source_{shell}")
    with pytest.raises(SystemExit):
        run([])
    assert f"_SENDENSE_COMPLETE=complete_{shell}" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("installed", [True, False], ids=["installed", "shown"])
def test_real_bash_completes_after_the_script_was_sourced(hub, tmp_path, installed):
    """bash finds its function for the word, and the function fills COMPREPLY."""
    hub.state.repositories.append(repository_pb2.Repository(name="second"))
    if installed:
        sourced = "sendense --install-completion >&2; . ~/.bashrc"
    else:
        sourced = 'eval "$(sendense --show-completion)"'
    program = f"""
        {sourced}
        complete -p sendense >&2 || exit 9
        function=$(complete -p sendense | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        COMP_WORDS=(sendense repository show "")
        COMP_CWORD=3
        "$function" sendense "" show
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    variables = os.environ | {
        "HOME": str(tmp_path),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "SENDENSE_HUB": hub.address,
    }
    done = subprocess.run(
        ["bash", "--norc", "-c", program],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["default", "second"]
