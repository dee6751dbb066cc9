"""The hub as a program: made, started, stopped, killed and started again."""

import contextlib
import fcntl
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from hub import cli
from hub.catalog.engine import Catalog
from hub.config import HubSettings, load_hub_settings
from hub.main import Hub, only_hub_of
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import hub_pb2
from sendense.v1.hub_pb2_grpc import HubServiceStub
from shared.errors import ConfigurationError
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm, Uploading, batches, raw_bytes
from tests.unit.hub.running_hub import RunningHub, refusal, refused

PROGRAM = [sys.executable, "-m", "hub.cli"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    made = CliRunner().invoke(
        cli.app, ["init", "--state-dir", str(state), "--repository", str(tmp_path / "repo")]
    )
    assert made.exit_code == 0, made.output
    return state


@pytest.fixture
def served(state: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A hub process and its address."""
    ready = state / "ready.json"
    with subprocess.Popen(
        [
            *(*PROGRAM, "serve", "--config", state / "hub.toml"),
            *("--listen", "127.0.0.1:0", "--ready-file", ready),
        ],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            while "hub_ready" not in (line := process.stderr.readline()):
                assert line, "the hub ended"
            yield process, json.loads(line)["address"]
        finally:
            process.kill()


def test_init_makes_a_hub_and_changes_nothing_when_repeated(state: Path) -> None:
    before = (state / "hub.toml").read_text()
    again = CliRunner().invoke(cli.app, ["init", "--state-dir", str(state)])
    assert again.exit_code == 0
    assert (state / "hub.toml").read_text() == before
    assert str(state.parent / "repo") in again.stdout
    assert not (state / "repository").exists()


def test_init_with_a_folder_that_is_no_repository_is_refused_naming_those_that_are(
    state: Path,
) -> None:
    repository = state.parent / "repo"
    same = ["init", "--state-dir", str(state), "--repository", str(repository)]
    assert CliRunner().invoke(cli.app, same).exit_code == 0
    other = [*same[:-1], str(state.parent / "other")]
    done = subprocess.run([*PROGRAM, *other], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert str(repository) in line
    assert "sendense repository create" in line
    assert not (state.parent / "other").exists()


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("log_level", "loud", "must be 'debug'"),
        ("listen", "0.0.0.0:8443", "is not a loopback address"),
        ("listen", "127.0.0.1", "is no host:port"),
        ("metrics_listen", "here", "is no host:port"),
        ("catalog_url", "nothing", "is not a database URL"),
        ("wrong", "x", "unknown key"),
    ],
)
def test_wrong_value_is_one_line_with_file_and_key(
    tmp_path: Path, key: str, value: str, problem: str
) -> None:
    settings = {"state_dir": str(tmp_path), "catalog_url": f"sqlite:///{tmp_path}/catalog.db"}
    config = tmp_path / "hub.toml"
    config.write_text("".join(f'{k} = "{v}"\n' for k, v in (settings | {key: value}).items()))
    done = CliRunner().invoke(cli.app, ["serve", "--config", str(config)])
    assert isinstance(done.exception, ConfigurationError)
    said = str(done.exception)
    assert said.startswith(f"{config}: {key}: ")
    assert problem in said


@pytest.mark.parametrize("name", ["a?b", "50%20 #1", "büro \U0001f4be", 'say "no"\\', "a\x7fb"])
def test_init_makes_a_hub_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    state = tmp_path / name
    made = CliRunner().invoke(cli.app, ["init", "--state-dir", str(state)])
    assert made.exit_code == 0, made.output
    settings = load_hub_settings(state / "hub.toml")
    assert settings.state_dir == state
    assert {"hub.toml", "catalog.db", "repository"} <= {each.name for each in state.iterdir()}
    Catalog(settings.catalog_url).require_newest()
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("arguments", "word", "code"),
    [
        (["serve", "--config", "{0}/none.toml"], "no such configuration file", 2),
        (["serve", "--config", "{0}/bad.toml"], "bad.toml: catalog_url: is missing", 2),
        (["serve", "--config", "{0}/hub.toml"], "there is no file {0}/catalog.db", 2),
        (["db", "check", "--config", "{0}/hub.toml"], "there is no file {0}/catalog.db", 2),
        (["db", "current", "--config", "{0}/empty.toml"], "file is not a database; name", 1),
        (["serve", "--config", "{0}/empty.toml"], "file is not a database; name", 1),
        (["db", "downgrade"], "Missing argument", 2),
        (["db", "nope"], "see 'sendense-hub db --help'", 2),
        (["db", "current"], "give --config FILE", 2),
        (["serve", "--config", "{0}/hub.toml", "--listen", "0.0.0.0:1"], "loopback", 2),
        (["init", "--state-dir", "{0}/bad.toml"], "bad.toml", 2),
        (["init", "--state-dir", "{0}/new", "--repository", "/proc/no/such"], "/proc/no/such", 1),
    ],
    ids=[
        *("no-file", "bad-file", "no-catalog", "nothing-to-check", "no-database", "not-served"),
        *("no-revision", "no-command", "no-config"),
        *("not-loopback", "no-folder", "no-repository"),
    ],
)
def test_error_is_one_line_and_an_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    word: str,
    code: int,
) -> None:
    (tmp_path / "bad.toml").write_text('listen = "127.0.0.1:0"\n')
    (tmp_path / "hub.toml").write_text(
        f'state_dir = "{tmp_path}"\ncatalog_url = "sqlite:///{tmp_path}/catalog.db"\n'
        'listen = "127.0.0.1:0"\n'
    )
    (tmp_path / "empty.toml").write_text(
        f'state_dir = "{tmp_path}"\ncatalog_url = "sqlite:///{tmp_path}/bad.toml"\n'
    )
    there = set(tmp_path.iterdir())
    # Logging is set up once a process, for the stderr of that moment.
    monkeypatch.setattr(cli, "configure_logging", lambda level: None)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr(
        sys, "argv", ["sendense-hub", *(part.format(tmp_path) for part in arguments)]
    )
    try:
        ended = cli.run()
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)
    assert ended == code
    said = capsys.readouterr().err.strip()
    assert word.format(tmp_path) in said
    assert len(said.splitlines()) == 1
    made = {path.name for path in set(tmp_path.iterdir()) - there}
    assert made <= {"new", "hub.lock", "bad.toml.hub-lock"}


def test_schema_is_upgraded_by_command(
    settings: HubSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = f"sqlite:///{tmp_path / 'fresh.db'}"
    monkeypatch.setenv("SENDENSE_HUB_CATALOG_URL", catalog)
    monkeypatch.setenv("SENDENSE_HUB_STATE_DIR", str(tmp_path))
    runner = CliRunner()
    (tmp_path / "fresh.db").touch()
    assert "catalog none" in runner.invoke(cli.app, ["db", "current"]).stdout
    assert runner.invoke(cli.app, ["db", "upgrade"]).exit_code == 0
    assert "catalog none" not in runner.invoke(cli.app, ["db", "current"]).stdout
    Catalog(catalog).require_newest()


def test_metrics_are_served_when_asked_for(settings: HubSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        Hub(settings.model_copy(update={"metrics_listen": f"127.0.0.1:{port}"})) as hub,
        FakeAgent(str(hub.address), "lab", [FakeVm()]).connect(),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer,
    ):
        assert "sendense_hub_agents_connected 1.0" in answer.read().decode()


def test_sigterm_ends_sessions_and_the_program(
    served: tuple[subprocess.Popen[str], str], state: Path
) -> None:
    process, address = served
    with FakeAgent(address, "lab", [FakeVm()]).connect() as agent:
        process.send_signal(signal.SIGTERM)
        error = agent.ended()
        assert error is not None
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert process.wait(10) == 0
    assert json.loads((state / "ready.json").read_text()) == {"address": address}


def test_killed_hub_goes_on_with_its_jobs_at_the_next_start(settings: HubSettings) -> None:
    first = Hub(settings)
    first.start()
    with (
        FakeAgent(str(first.address), "lab", [FakeVm()]).connect() as agent,
        grpc.insecure_channel(str(first.address)) as channel,
    ):
        hub = RunningHub(first, channel)
        done = hub.start().job_id
        agent.expect("start_job")
        agent.run_job(done, [FakeDisk("AB")])
        hub.wait(done)
        job = hub.start().job_id
        agent.expect("start_job")
        disks = [FakeDisk("AB"), FakeDisk("CD", key=2001, uuid="u2")]
        agent.open_job(job, disks)
        agent.expect("job_plan")
        agent.upload(job, 0, "AB")
        with Uploading(agent.channel) as up:
            up.open(job, 1, bytes_planned=2 * 65536)
            up.frame(batches("CD")[0])
            up.until("ack")
            files = hub.files()
            # What a killed hub leaves: no code of its own ran any more, so the
            # second one finds rows and files as they are now, and none locked.
            unlock(settings.state_dir / "repository")
            second = Hub(settings)
            with second, grpc.insecure_channel(str(second.address)) as again:
                found = RunningHub(second, again)
                assert found.get(job).status == pb.BACKUP_STATUS_RUNNING
                assert found.get(done).status == pb.BACKUP_STATUS_COMPLETED
                assert found.files() == files
                (left,) = report_of(second).jobs
                assert (left.job_id, left.vm_name) == (job, "pgtest1")
                assert left.decision == hub_pb2.RECOVERY_DECISION_WAITS_FOR_AGENT
                (disk,) = left.disks
                assert (disk.disk_index, disk.layer) == (1, hub_pb2.RECOVERED_LAYER_REOPENED)
                assert disk.durable_frames == 1
                with FakeAgent(
                    found.address, "lab", [FakeVm()], run_id=agent.run_id, job_ids=[job]
                ) as back:
                    back.connect()
                    assert list(back.registered.live_job_ids) == [job]
                    back.open_job(job, disks)
                    back.expect("job_plan")
                    back.upload(job, 1, "CD")
                    back.send(job_read=session_pb.JobRead(job_id=job))
                    back.send(job_uploaded=session_pb.JobUploaded(job_id=job))
                    back.closed(job)
                    assert found.get(job).status == pb.BACKUP_STATUS_COMPLETED
                    assert found.restored(job, 0) == raw_bytes("AB")
                    assert found.restored(job, 1) == raw_bytes("CD")
    first.stop()


def unlock(folder: Path) -> None:
    """What the kernel does with the locks of a process that ends, for the open files of a folder."""
    for descriptor in Path("/proc/self/fd").iterdir():
        # The listing's own descriptor is gone by now.
        with contextlib.suppress(FileNotFoundError):
            if descriptor.readlink().is_relative_to(folder):
                fcntl.flock(int(descriptor.name), fcntl.LOCK_UN)


def report_of(hub: Hub) -> hub_pb2.RecoveryReportResponse:
    with grpc.insecure_channel(str(hub.address)) as channel:
        return HubServiceStub(channel).RecoveryReport(hub_pb2.RecoveryReportRequest(), timeout=20)


def test_stopping_hub_keeps_its_jobs_and_ends_watches(settings: HubSettings) -> None:
    hub = Hub(settings)
    hub.start()
    with (
        FakeAgent(str(hub.address), "lab", [FakeVm()]).connect() as agent,
        grpc.insecure_channel(str(hub.address)) as channel,
    ):
        running = RunningHub(hub, channel)
        job = running.start().job_id
        agent.expect("start_job")
        agent.open_job(job, [FakeDisk("AB")])
        agent.expect("job_plan")
        watch = running.backups.WatchBackup(pb.WatchBackupRequest(job_id=job), timeout=20)
        next(watch)
        with Uploading(agent.channel) as up:
            up.open(job, 0, bytes_planned=2 * 65536)
            up.frame(batches("AB")[0])
            up.until("ack")
            hub.stop()
            assert refusal(up.sealed)[1] == "HUB_STOPPING"
        error = agent.ended()
        assert error is not None
        assert refused(error)[1] == "HUB_STOPPING"
        with pytest.raises(grpc.RpcError):
            list(watch)
    with Hub(settings) as again, grpc.insecure_channel(str(again.address)) as channel:
        assert RunningHub(again, channel).get(job).status == pb.BACKUP_STATUS_RUNNING
        (left,) = report_of(again).jobs
        assert [disk.durable_frames for disk in left.disks] == [1]


def test_second_hub_on_a_state_folder_is_refused(tmp_path: Path) -> None:
    with (
        only_hub_of(tmp_path),
        pytest.raises(ConfigurationError, match="another hub"),
        only_hub_of(tmp_path),
    ):
        pass


def test_taken_port_is_refused(hub: RunningHub, settings: HubSettings) -> None:
    second = Hub(settings.model_copy(update={"listen": hub.address}))
    with pytest.raises(ConfigurationError, match=f"^listen: {hub.address} is in use$"):
        second.start()


def test_serving_on_a_taken_port_ends_in_one_line(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [*PROGRAM, "serve", "--config", str(state / "hub.toml"), "--listen", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"sendense-hub: listen: {address} is in use\n"
