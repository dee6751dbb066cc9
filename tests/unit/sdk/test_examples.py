"""The examples in this process, against a hub that answers from memory."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sendense.v1 import backup_pb2, context_pb2, inventory_pb2
from tests.unit.sdk.cli_world import JOB_ID, furnish, job
from tests.unit.sdk.client_hub import ClientHub, Part, draw, refused, stored

EXAMPLES = Path(__file__).parents[3] / "sdk" / "examples"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub() -> Iterator[ClientHub]:
    with ClientHub() as hub:
        furnish(hub.state)
        hub.state.contexts[0].site = "site-1"
        hub.state.restore = lambda: stored(draw("A1"), job_id=JOB_ID)
        yield hub


@pytest.fixture
def example(
    hub: ClientHub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Run an example where SENDENSE_HUB names the hub: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENDENSE_HUB", hub.address)

    def run(name: str, *words: str) -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr("sys.argv", [name, *words])
        try:
            code = module.main()
        except SystemExit as ended:  # argparse
            code = ended.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("start_and_wait", ["pgtest1"]),
        ("nightly_report", []),
        ("restore_to_file", ["pgtest1", "disk.raw"]),
    ],
)
def test_hub_of_the_line_beats_that_of_the_environment(hub, example, monkeypatch, name, words):
    hub.state.watches = [[job()]]
    example(name, *words)
    assert hub.state.seen
    monkeypatch.setenv("SENDENSE_HUB", "127.0.0.1:1")
    asked = len(hub.state.seen)
    hub.state.watches = [[job()]]
    example(name, *words, "--hub", hub.address)
    assert len(hub.state.seen) > asked


# --- restore_to_file ------------------------------------------------------------


def test_restore_refuses_the_job_of_another_vm_or_site(hub, example, tmp_path):
    for words, told in (
        (["other", "disk.raw"], "is of VM pgtest1 of site site-1"),
        (["pgtest1", "disk.raw", "--site", "site-2"], "is of VM pgtest1 of site site-1"),
    ):
        code, out, err = example("restore_to_file", *words, "--job", JOB_ID)
        assert (code, out) == (1, "")
        assert err == f"error: backup {JOB_ID} {told}\n"
    assert hub.state.requests("RestoreDisk") == []
    assert list(tmp_path.iterdir()) == []
    assert example("restore_to_file", "pgtest1", "disk.raw", "--job", JOB_ID)[0] == 0
    assert (tmp_path / "disk.raw").read_bytes() == draw("A1")


def test_restore_asks_for_the_site_of_a_name_that_two_sites_have(hub, example):
    hub.state.contexts.append(context_pb2.BackupContext(vm_name="pgtest1", site="site-0"))
    code, _, err = example("restore_to_file", "pgtest1", "disk.raw")
    assert (code, err) == (1, "error: VM pgtest1 is in the sites site-0, site-1: give --site\n")
    assert hub.state.requests("RestoreDisk") == []


def test_restore_takes_the_newest_backup_of_the_site(hub, example):
    other = job()
    other.job_id, other.site = "backup-of-another", "site-0"
    hub.state.backups.insert(0, other)
    code, out, _ = example("restore_to_file", "pgtest1", "disk.raw")
    assert code == 0
    assert f"disk 0 of {JOB_ID}, " in out


def test_restore_replaces_a_file_only_when_told_and_says_how(example, tmp_path):
    target = tmp_path / "disk.raw"
    target.write_bytes(b"precious")
    code, out, err = example("restore_to_file", "pgtest1", "disk.raw")
    assert (code, out) == (1, "")
    assert err == (
        "error: disk.raw exists (TARGET_EXISTS): --overwrite replaces it once all is restored\n"
    )
    assert target.read_bytes() == b"precious"
    assert example("restore_to_file", "pgtest1", "disk.raw", "--overwrite")[0] == 0
    assert target.read_bytes() == draw("A1")


# --- nightly_report -------------------------------------------------------------


@pytest.mark.parametrize("hours", ["0", "-5", "nan", "inf", "1e300", "x"])
def test_report_refuses_hours_that_are_no_time_back(hub, example, hours):
    code, out, err = example("nightly_report", f"--hours={hours}")
    assert (code, out) == (2, "")
    assert "--hours" in err.splitlines()[-1]
    assert hub.state.seen == []


def test_report_that_finds_nothing_wrong_is_exit_code_0(hub, example):
    hub.state.virtual_machines = []
    code, out, _ = example("nightly_report")
    assert code == 0, out
    assert out.endswith("\n0 VMs failed, 0 are not protected\n")


@pytest.mark.parametrize(
    ("agents", "told"),
    [
        (
            [
                inventory_pb2.Agent(
                    site="lab", vm_count=3, last_seen_at=Timestamp(seconds=1759946759)
                ),
                inventory_pb2.Agent(site="site-1", connected=True, vm_count=2),
            ],
            "  lab: its agent is away, last heard of 2025-10-08 18:05Z\n",
        ),
        (
            [
                inventory_pb2.Agent(
                    site="lab", connected=True, last_seen_at=Timestamp(seconds=1759946759)
                )
            ],
            "  lab: reports no VMs, last heard of 2025-10-08 18:05Z\n",
        ),
        ([], "  there is no site: no agent ever registered\n"),
    ],
)
def test_report_does_not_call_vms_protected_that_nobody_told_of(hub, example, agents, told):
    hub.state.agents, hub.state.virtual_machines = agents, []
    code, out, _ = example("nightly_report")
    assert code == 1
    assert f"not as they are now: NEED A LOOK\n{told}\n" in out
    assert out.endswith("\n0 VMs failed, 0 are known to be not protected\n")
    assert "site-1:" not in out


def test_report_tells_the_repositories_of_a_vm_apart_and_counts_it_once(hub, example):
    hub.state.virtual_machines = []
    hub.state.backups = []
    for repository in ("fast", "archive"):
        failed = job(4)
        failed.context_id, failed.repository_name = f"ctx-{repository}", repository
        hub.state.backups.append(failed)
    code, out, _ = example("nightly_report")
    assert code == 1
    headings = [line for line in out.splitlines() if line.startswith("pgtest1")]
    assert headings == [
        "pgtest1 (site-1) in archive: NEEDS A LOOK",
        "pgtest1 (site-1) in fast: NEEDS A LOOK",
    ]
    assert out.endswith("\n1 VMs failed, 0 are not protected\n")


def test_report_that_could_not_be_made_is_no_finding(hub, example):
    hub.state.failures["ListAgents"] = [refused("x", code="CATALOG_UNAVAILABLE")]
    code, out, err = example("nightly_report")
    assert (code, out, err) == (3, "", "error: x (CATALOG_UNAVAILABLE)\n")


# --- Ctrl-C ---------------------------------------------------------------------


def interrupted(hub: ClientHub, name: str, *words: str, after: Callable[[], object]) -> str:
    """What an example says on standard error when it is interrupted after that happened."""
    with subprocess.Popen(
        [sys.executable, EXAMPLES / f"{name}.py", *words],
        env=os.environ | {"SENDENSE_HUB": hub.address, "GRPC_VERBOSITY": "NONE"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert after()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    return err


def test_interrupt_while_a_backup_is_asked_for_says_that_it_may_have_started(hub):
    hub.state.hold.add("StartBackup")
    err = interrupted(hub, "start_and_wait", "pgtest1", after=lambda: hub.state.held.wait(30))
    assert err == "interrupted; `sendense job list` tells whether it started\n"


def test_interrupt_while_a_backup_runs_says_that_it_goes_on(hub):
    def endless() -> Iterator[backup_pb2.Backup]:
        yield job(2)
        hub.state.held.set()
        hub.state.released.wait(60)

    hub.state.watches = [endless()]
    err = interrupted(hub, "start_and_wait", "pgtest1", after=lambda: hub.state.held.wait(30))
    assert err == "interrupted; backup-pgtest1-1 goes on\n"
    assert hub.state.requests("CancelBackup") == []


def test_interrupted_restore_example_leaves_nothing(hub, tmp_path):
    def slow() -> Iterator[Part]:
        yield from stored(draw("AB12"), job_id=JOB_ID)[:-1]
        hub.state.held.set()
        hub.state.released.wait(60)

    hub.state.restore = slow
    words = ("pgtest1", str(tmp_path / "disk.raw"))
    err = interrupted(hub, "restore_to_file", *words, after=lambda: hub.state.held.wait(30))
    assert err.splitlines()[-1] == "interrupted; no part of a file is left"
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
