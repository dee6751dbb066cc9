"""The `sendense` command as an administrator and as a script use it."""

import json
import subprocess
from pathlib import Path

import pytest

from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite
from tests.end_to_end.processes import BIN, Agent, Hub
from tests.end_to_end.restores import Witness

MIB = 1 << 20


def _sendense(hub: Hub, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "sendense", "--hub", hub.address, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=90,
    )


def _json(hub: Hub, *arguments: str | Path) -> dict[str, object]:
    done = _sendense(hub, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_the_main_job_from_the_command_line(
    tmp_path: Path, site: SimulatedSite, agent: Agent, hub: Hub
) -> None:
    vm = site.add_vm(
        "pgtest1", disks=[DiskSpec(capacity_bytes=8 * MIB, content=b"payload" * 400_000)]
    )
    agent.start()
    assert "pgtest1" in _sendense(hub, "vm", "list").stdout
    started = _sendense(hub, "backup", "start", "pgtest1", "--wait")
    assert started.returncode == 0, started.stderr
    vm.disks[0].write(0, b"more")
    assert _sendense(hub, "backup", "start", "pgtest1", "--wait").returncode == 0

    jobs = _json(hub, "job", "list")["backups"]
    assert isinstance(jobs, list)
    assert [j["status"] for j in jobs] == ["BACKUP_STATUS_COMPLETED"] * 2
    newest = jobs[0]["job_id"] if "job_id" in jobs[0] else jobs[0]["jobId"]

    for output_format in ("raw", "qcow2"):
        output = tmp_path / f"restored.{output_format}"
        done = _sendense(hub, "restore", newest, "0", "--output", output, "--format", output_format)
        assert done.returncode == 0, done.stderr
    assert Witness.of_file(tmp_path / "restored.raw") == Witness.of_disk(vm.disks[0])
    compared = subprocess.run(
        [
            *("qemu-img", "compare", "-f", "raw", "-F", "qcow2"),
            *(tmp_path / "restored.raw", tmp_path / "restored.qcow2"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert compared.returncode == 0, compared.stdout
    for command in (("context", "list"), ("agent", "list"), ("repository", "list")):
        done = _sendense(hub, *command)
        assert done.returncode == 0
        assert done.stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("backup", "start", "nowhere"), 4, "VM_NOT_FOUND"),
        (("job", "show", "backup-none-1"), 4, "JOB_NOT_FOUND"),
        (("context", "show", "ctx-none"), 4, "CONTEXT_NOT_FOUND"),
    ],
)
def test_errors_have_a_reason_and_an_exit_code(
    hub: Hub, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    done = _sendense(hub, *arguments)
    assert done.returncode == code
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_is_not_there_is_exit_code_3(tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "sendense", "--hub", "127.0.0.1:9", "job", "list"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert "127.0.0.1:9" in done.stderr


@pytest.mark.parametrize(
    "program", ["sendense", "sendense-hub", "sendense-agent", "sendense-simulator"]
)
def test_every_program_has_help_and_version(program: str) -> None:
    for flag in ("--help", "--version"):
        done = subprocess.run([BIN / program, flag], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (flag, done.stderr)
        assert done.stdout.strip()
