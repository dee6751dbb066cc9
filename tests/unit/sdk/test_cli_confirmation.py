"""What the command asks on a terminal before something goes for good."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sendense.cli.main import run
from tests.unit.sdk.cli_world import JOB_ID, furnish
from tests.unit.sdk.client_hub import ClientHub

SENDENSE = Path(sys.executable).parent / "sendense"


@pytest.fixture
def hub() -> Iterator[ClientHub]:
    with ClientHub() as hub:
        furnish(hub.state)
        yield hub


Answered = Callable[[ClientHub, str, str], tuple[int, str, str]]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answered:
    """Run a command whose standard input is a terminal at which somebody types `answers`."""

    def answer(hub: ClientHub, words: str, answers: str) -> tuple[int, str, str]:
        keyboard, terminal = pty.openpty()
        try:
            os.write(keyboard, answers.encode())
            with os.fdopen(terminal) as stdin:
                monkeypatch.setattr("sys.stdin", stdin)
                code = run(["--hub", hub.address, *words.split()])
        finally:
            os.close(keyboard)
        return code, *capsys.readouterr()

    return answer


@pytest.mark.parametrize(
    ("words", "rpc", "question"),
    [
        (
            f"job delete {JOB_ID}",
            "DeleteBackup",
            f"delete backup {JOB_ID} of VM pgtest1 (completed, created 2025-10-08 18:05:59Z, "
            "301 MiB)?",
        ),
        (
            "context delete ctx-1",
            "DeleteContext",
            "delete all backups of VM pgtest1 in repository  (0 restore points, 0 B)?",
        ),
        (
            "repository delete default",
            "DeleteRepository",
            "delete repository default at /srv/backups?",
        ),
        (
            "agent remove site-1",
            "RemoveAgent",
            "forget the agent of site site-1 and its 5 VMs? (backups stay)",
        ),
    ],
)
@pytest.mark.parametrize("answer", ["y", ""])
def test_deleting_asks_on_a_terminal(hub, answered, words, rpc, question, answer):
    code, out, err = answered(hub, words, f"{answer}\n")
    assert question in err
    if answer == "y":
        assert code == 0
        assert "deleted" in out or "removed" in out
    else:
        assert (code, out) == (1, "")
        assert err.endswith("nothing was changed\n")
    assert len(hub.state.requests(rpc)) == (answer == "y")


@pytest.mark.parametrize(
    ("answer", "code", "reason", "message"),
    [
        ("n\n", 1, "NOT_CONFIRMED", "nothing was changed"),
        ("\x04", 130, "INTERRUPTED", "interrupted; nothing was changed"),
    ],
)
@pytest.mark.parametrize(
    ("words", "rpc"),
    [("repository delete default", "DeleteRepository"), (f"job delete {JOB_ID}", "DeleteBackup")],
)
def test_answer_of_no_is_an_error_object_where_json_was_asked_for(
    hub, answered, answer, code, reason, message, words, rpc
):
    ended, out, err = answered(hub, f"--json {words}", answer)
    assert (ended, out) == (code, "")
    document = err[err.index("[y/N]: ") + len("[y/N]: ") :]
    assert json.loads(document)["error"] == {
        "reason": reason,
        "message": message,
        "metadata": {},
        "exit_code": code,
    }
    assert hub.state.requests(rpc) == []


def test_end_of_the_input_is_no_agreement(hub):
    """In a process, as a person has it."""
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, b"\x04")
        done = subprocess.run(
            [SENDENSE, "--hub", hub.address, "job", "delete", JOB_ID],
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(keyboard)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.endswith("[y/N]: \ninterrupted; nothing was changed\n")
    assert hub.state.requests("DeleteBackup") == []


@pytest.mark.parametrize("agreed", [True, False])
def test_cascade_asks_for_the_dependants_by_name(hub, answered, agreed):
    hub.state.dependants = "job-2,job-3"
    words = f"job delete {JOB_ID} --cascade"
    code, out, err = answered(hub, words, f"y\n{'y' if agreed else 'n'}\n")
    assert "these backups build on it:\njob-2\njob-3\ndelete all of these, too?" in err
    assert [request.cascade for request in hub.state.requests("DeleteBackup")] == (
        [False, True] if agreed else [False]
    )
    assert code == (0 if agreed else 1)
    assert out.splitlines() == (
        ["job-3: deleted", "job-2: deleted", f"{JOB_ID}: deleted"] if agreed else []
    )


def test_dependants_that_the_hub_cut_off_are_not_named_by_half(hub, answered):
    hub.state.dependants = "job-2,job-3,job-…"
    _, _, err = answered(hub, f"job delete {JOB_ID} --cascade", "y\nn\n")
    assert "these backups build on it:\njob-2\njob-3\nand more\ndelete all of these, too?" in err


def test_dependants_without_cascade_are_refused_after_the_question(hub, answered):
    hub.state.dependants = "job-2"
    code, out, err = answered(hub, f"job delete {JOB_ID}", "y\n")
    assert (code, out) == (5, "")
    assert "(JOB_HAS_DEPENDANTS)" in err
    assert [request.cascade for request in hub.state.requests("DeleteBackup")] == [False]


def test_names_in_a_question_cannot_command_the_terminal(hub, answered):
    hub.state.repositories[0].path = "/srv/\x1b[2Jevil"
    _, _, err = answered(hub, "repository delete default", "n\n")
    assert "\x1b" not in err
    assert "/srv/\\x1b[2Jevil" in err
