"""The `sendense` command as an administrator and as a script use it."""

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sendense.cli.main import run
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite
from tests.end_to_end.processes import BIN, Agent, Hub, wait_for
from tests.end_to_end.restores import Witness

MIB = 1 << 20
READS_BEFORE_HOLD = 2  # 2 MiB each: the hub has some data then


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
    newest = jobs[0]["job_id"]

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


class Shell:
    """The command in this process: a start of Python for each of many commands takes long."""

    def __init__(self, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
        self._hub = hub
        self._capsys = capsys

    def run(self, command: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._capsys.readouterr()
        code = run(["--hub", self._hub.address, *command.split()])
        return code, *self._capsys.readouterr()

    def ok(self, command: str) -> str:
        code, out, err = self.run(command)
        assert code == 0, f"{command}: {err}"
        return out

    def json(self, command: str) -> Any:
        return json.loads(self.ok(f"--json {command}"))

    def refused(self, command: str, reason: str) -> None:
        code, out, err = self.run(command)
        assert code == 5, f"{command}: {out}{err}"
        assert f"({reason})" in err


@pytest.fixture
def shell(hub: Hub, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(hub, capsys)


def test_backups_are_administered_from_the_command_line(
    site: SimulatedSite, agent: Agent, hub: Hub, shell: Shell
) -> None:
    vm = site.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=8 * MIB, content=b"data" * MIB)])
    site.add_vm("diskless", disks=[])
    agent.start()
    assert "diskless" in shell.ok("vm list --not-protected")
    jobs = []
    for step in range(3):
        vm.disks[0].write(step * 65536, b"change")
        jobs.append(shell.json("backup start pgtest1 --wait")["job_id"])
    first, second, third = jobs
    assert "pgtest1" in shell.ok("vm list --protected")
    assert "pgtest1" not in shell.ok("vm list --not-protected")

    # Lists by what is asked for.
    def listed(options: str) -> list[str]:
        return [job["job_id"] for job in shell.json(f"job list {options}")["backups"]]

    assert listed("--vm pgtest1") == [third, second, first]
    assert listed("--oldest-first --limit 2") == [first, second]
    assert listed("--type full") == [first]
    assert listed("--status completed --since 1h") == [third, second, first]
    assert listed("--until 1h") == []

    # Disks: the chain, and what the next increment builds on.
    chain = shell.json(f"disk chain {third} 0")
    assert [layer["job_id"] for layer in chain["layers"]] == [third, second, first]
    assert [layer["problem"] for layer in chain["layers"]] == ["", "", ""]
    assert "3 layers, " in shell.ok(f"disk chain {third} 0")
    disk = shell.json(f"disk show {third} 0")["disk"]
    change_id = shell.json("disk change-id pgtest1 0")
    assert change_id["disk_change_id"] == disk["disk_change_id"]
    assert (change_id["job_id"], change_id["disk_id"]) == (third, disk["disk_id"])

    # A failed job is retried, and fails again.
    assert shell.run("backup start diskless --wait")[0] == 1
    (failed,) = listed("--status failed")
    code, out, _ = shell.run(f"--json job retry {failed} --wait")
    assert code == 1
    assert json.loads(out)["retry_of_job_id"] == failed
    shell.refused(f"job retry {first}", "JOB_NOT_UNSUCCESSFUL")

    # Statistics count what happened.
    statistics = shell.json("statistics --days 2")
    assert int(statistics["now"]["restore_points"]) == 3
    assert int(statistics["total"]["jobs_completed"]) == 3
    assert int(statistics["total"]["jobs_failed"]) == 2
    assert len(statistics["days"]) == 2
    assert "restore points" in shell.ok("statistics")

    # What others build on goes only with them.
    shell.refused(f"job delete {second} --yes", "JOB_HAS_DEPENDANTS")
    deleted = shell.json(f"job delete {second} --cascade --yes")
    assert deleted["job_ids"] == [third, second]
    assert listed("--vm pgtest1") == [first]
    assert all(first in file for file in hub.files())
    (context,) = shell.json("context list --vm pgtest1")["contexts"]
    assert shell.ok(f"context delete {context['context_id']} --yes") == f"{first}: deleted\n"
    assert hub.files() == []


def test_disks_of_a_running_job_have_the_numbers_of_the_moment_wherever_they_are_told(
    site: SimulatedSite, agent: Agent, shell: Shell
) -> None:
    content = random.Random(5).randbytes(16 * MIB)
    site.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=16 * MIB, content=content)])
    agent.start()
    site.faults.hold_reads(READS_BEFORE_HOLD)
    job_id = shell.json("backup start pgtest1")["job_id"]

    def disks() -> Any:
        return shell.json(f"job show {job_id}")["disks"]

    wait_for("a job with data", lambda: any(int(d["bytes_read"]) for d in disks()))
    shown = shell.json(f"disk show {job_id} 0")
    (listed,) = shell.json(f"disk list {job_id}")["disks"]
    for told in (shown["disk"], *shown["chain"], listed):
        assert told["status"] == "BACKUP_STATUS_RUNNING"
        assert 0 < int(told["bytes_read"]) < int(told["bytes_planned"])
    site.faults.release_reads()
    shell.ok(f"job watch {job_id}")
    assert int(disks()[0]["bytes_read"]) == 16 * MIB


def test_places_are_administered_from_the_command_line(
    tmp_path: Path, site: SimulatedSite, agent: Agent, shell: Shell
) -> None:
    site.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=2 * MIB, content=b"data" * 1000)])
    agent.start()
    shell.ok(f"repository create second {tmp_path / 'second'}")
    checks = shell.json("repository test second")["checks"]
    assert [check["name"] for check in checks] == ["mark", "space", "write", "read", "remove"]
    shell.ok("repository rename second spare")
    shell.ok("repository set-default spare")
    listed = shell.json("repository list")["repositories"]
    assert [item["name"] for item in listed if item["is_default"]] == ["spare"]
    shell.refused("repository delete spare --yes", "REPOSITORY_IS_DEFAULT")
    assert "remark: it is the default" in shell.run("repository disable spare")[2]
    shell.refused("backup start pgtest1", "REPOSITORY_DISABLED")
    shell.ok("repository enable spare")
    shell.ok("repository set-default default")
    assert "disabled" in shell.ok("repository disable spare")
    shell.refused("backup start pgtest1 --repository spare", "REPOSITORY_DISABLED")
    shell.ok("repository enable spare")
    shell.ok("backup start pgtest1 --repository spare --wait")
    shell.refused("repository delete spare --yes", "REPOSITORY_NOT_EMPTY")
    (context,) = shell.json("context list --repository spare")["contexts"]
    shell.ok(f"context delete {context['context_id']} --yes")
    assert shell.ok("repository delete spare --yes") == "spare: deleted\n"

    assert "draining" in shell.ok("agent drain lab")
    shell.refused("backup start pgtest1", "AGENT_DRAINING")
    assert "draining" not in shell.ok("agent resume lab")
    shell.ok("backup start pgtest1 --wait")
    shell.refused("agent remove lab --yes", "AGENT_CONNECTED")
    agent.stop()
    wait_for("agent gone", lambda: not shell.json("agent list")["agents"][0]["connected"])
    assert shell.ok("agent remove lab --yes") == "lab: removed\n"
    assert shell.ok("agent list") == "no agents\n"
    assert shell.ok("vm list") == "no VMs\n"
    assert "pgtest1" in shell.ok("context list")


@pytest.fixture(scope="module")
def untouched_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """For commands that are refused: it stays as it is."""
    hub = Hub(tmp_path_factory.mktemp("untouched"))
    hub.start()
    yield hub
    hub.stop()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("backup", "start", "nowhere"), 4, "VM_NOT_FOUND"),
        (("job", "show", "backup-none-1"), 4, "JOB_NOT_FOUND"),
        (("context", "show", "ctx-none"), 4, "CONTEXT_NOT_FOUND"),
    ],
)
def test_errors_have_a_reason_and_an_exit_code(
    untouched_hub: Hub, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    done = _sendense(untouched_hub, *arguments)
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
