"""`sendense-agent` as people run it: a process, its output and its exit code."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import HubNotServing
from agent.hub_check import check_hub
from simulator.site import DiskSpec, SimulatedSite
from tests.unit.agent.recording_hub import DEADLINE_S, RecordingHub
from tests.unit.agent.running_agent import start_job

PROGRAM = [str(Path(sys.executable).parent / "sendense-agent")]


def write_config(folder: Path, site: SimulatedSite, hub_address: str, **changed: str) -> Path:
    values = {
        "address": site.address,
        "user": site.user,
        "certificate_sha256": site.certificate_sha256,
        "password": site.password,
    } | changed
    (folder / "password").touch(mode=0o600)
    (folder / "password").write_text(values.pop("password"))
    section = "".join(f'{key} = "{value}"\n' for key, value in values.items())
    path = folder / "agent.toml"
    path.write_text(
        f'site = "paris"\nhub_address = "{hub_address}"\n[vsphere]\npassword_file = "password"\n'
        + section
    )
    return path


def run_bytes(*arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SENDENSE_")} | variables
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, timeout=60, env=environment)


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    done = run_bytes(*arguments, **variables)
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_help_and_version_are_there() -> None:
    assert "run" in run("--help").stdout
    assert run("--version").stdout.startswith("sendense-agent ")


def test_check_shows_what_answers(
    tmp_path: Path, hub: RecordingHub, simulated: SimulatedSite
) -> None:
    simulated.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=1 << 20)])
    done = run("check", "--config", str(write_config(tmp_path, simulated, hub.address)))
    assert (done.returncode, done.stderr) == (0, "")
    assert "paris" in done.stdout
    assert simulated.address in done.stdout
    assert "1, with 1 disks" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["hub", hub.address, "serving"]


def test_check_of_a_hub_that_stops_serving_is_exit_code_5(
    tmp_path: Path, hub: RecordingHub, simulated: SimulatedSite
) -> None:
    hub.health.enter_graceful_shutdown()
    done = run("check", "--config", str(write_config(tmp_path, simulated, hub.address)))
    assert done.returncode == 5
    assert "NOT_SERVING" in done.stderr
    assert "serving" not in done.stdout


def test_check_of_a_hub_that_is_away_is_exit_code_5_in_one_line(
    tmp_path: Path, simulated: SimulatedSite
) -> None:
    # Bound, but not listening: nobody answers there.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        done = run("check", "--config", str(write_config(tmp_path, simulated, address)))
    assert done.returncode == 5
    assert "vSphere" in done.stdout
    (line,) = done.stderr.splitlines()
    assert address in line
    assert line.endswith("(HUB_NOT_SERVING)")


def test_check_of_a_hub_that_does_not_answer_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(HubNotServing, match=address):
            check_hub(address, deadline_s=0.2)


def test_check_warns_of_variables_without_effect_and_of_an_open_password_file(
    tmp_path: Path, hub: RecordingHub, simulated: SimulatedSite
) -> None:
    config = write_config(tmp_path, simulated, hub.address)
    (tmp_path / "password").chmod(0o640)
    done = run("check", "--config", str(config), SENDENSE_AGENT_LOGLEVEL="debug")
    assert done.returncode == 0
    assert "SENDENSE_AGENT_LOGLEVEL" in done.stderr
    assert "password_file_readable_by_others" in done.stderr
    assert simulated.password not in done.stderr


@pytest.mark.parametrize("command", ["run", "check", "probe"])
@pytest.mark.parametrize("wrong", ["password", "certificate_sha256"])
def test_vsphere_that_refuses_is_exit_code_3(
    tmp_path: Path, simulated: SimulatedSite, command: str, wrong: str
) -> None:
    config = write_config(
        tmp_path, simulated, "127.0.0.1:8443",
        **{wrong: "0" * 64 if wrong == "certificate_sha256" else "no-such-password"},
    )  # fmt: skip
    done = run(command, "--config", str(config))
    assert done.returncode == 3
    assert done.stderr.startswith("sendense-agent: ")
    assert "Traceback" not in done.stderr
    assert "no-such-password" not in done.stderr


def test_wrong_configuration_is_exit_code_2(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text("quicker = true")
    done = run("run", "--config", str(config))
    assert done.returncode == 2
    assert str(config) in done.stderr
    assert "quicker" in done.stderr


@pytest.mark.parametrize("command", ["check", "probe"])
def test_look_at_an_unreachable_vsphere_is_exit_code_4(
    tmp_path: Path, simulated: SimulatedSite, command: str
) -> None:
    config = write_config(tmp_path, simulated, "127.0.0.1:8443")
    simulated.close()
    assert run(command, "--config", str(config)).returncode == 4


def test_sigterm_during_a_job_removes_the_snapshot_and_exits_with_0(
    tmp_path: Path, hub: RecordingHub, simulated: SimulatedSite
) -> None:
    vm = simulated.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=1 << 20)])
    config = write_config(tmp_path, simulated, hub.address)
    process = subprocess.Popen(
        [*PROGRAM, "run", "--config", str(config)], stderr=subprocess.PIPE, text=True
    )
    try:
        session = hub.next_session()
        start_job(session, vm, "job-1")
        session.event("job_opened")
        assert len(vm.snapshots) == 1
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert session.event("job_failed").error.reason == "AGENT_STOPPING"
    assert vm.snapshots == []
    assert session.agent_left.wait(DEADLINE_S)
    assert "agent_stopped" in log
    assert simulated.password not in log


def test_log_of_a_hub_that_goes_away_holds_the_agent_s_own_lines_alone(
    tmp_path: Path, hub: RecordingHub, simulated: SimulatedSite
) -> None:
    config = write_config(tmp_path, simulated, hub.address)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRPC_")}
    process = subprocess.Popen(
        [*PROGRAM, "run", "--config", str(config)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        session = hub.next_session()
        session.event("inventory")
        hub.close()
        assert process.stderr is not None
        lines = [process.stderr.readline()]
        while lines[-1] and "hub_not_connected" not in lines[-1]:
            lines.append(process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        lines += process.communicate(timeout=60)[1].splitlines()
    finally:
        process.kill()
    assert any("hub_session_lost" in line for line in lines)
    (told,) = [line for line in lines if "hub_not_connected" in line]
    assert "start the backup again" not in told
    assert [line for line in lines if "goaway" in line.lower() or ".cc:" in line] == []


def test_sigterm_while_vsphere_is_unreachable_exits_with_0(
    tmp_path: Path, simulated: SimulatedSite
) -> None:
    config = write_config(tmp_path, simulated, "127.0.0.1:8443")
    simulated.close()
    process = subprocess.Popen(
        [*PROGRAM, "run", "--config", str(config)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert "vsphere_not_reached" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
