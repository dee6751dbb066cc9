"""The `sendense` command as a process: signals, streams, help."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import sendense.cli.main
from sendense.v1.backup_pb2 import Backup, BackupDisk
from tests.unit.sdk.client_hub import ClientHub, Part, draw, stored

SENDENSE = Path(sys.executable).parent / "sendense"
RUNNING = Backup(
    job_id="job-1",
    status=2,
    disks=[BackupDisk(label="Hard disk 1", bytes_planned=4 << 30, bytes_read=1 << 30, status=2)],
)
COMPLETED = Backup(job_id="job-1", status=3)


@pytest.fixture
def hub() -> Iterator[ClientHub]:
    with ClientHub() as hub:
        yield hub


def start(hub: ClientHub, *words: str, **options: object) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = [str(SENDENSE), *words]
    environment = os.environ | {"SENDENSE_HUB": hub.address}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def run(hub: ClientHub, *words: str) -> tuple[int, str, str]:
    with start(hub, *words) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def read_until(stream: object, text: str) -> str:
    read = ""
    while text not in read:
        line = stream.readline()
        assert line, f"ended before {text!r}: {read}"
        read += line
    return read


def test_version_and_help_need_no_hub(hub):
    code, out, err = run(hub, "--version")
    assert (code, err) == (0, "")
    assert out.startswith("sendense ")
    code, out, err = run(hub, "backup", "start", "--help")
    assert (code, err) == (0, "")
    assert "Usage: sendense backup start " in out
    assert hub.state.seen == []


def test_help_tells_the_exit_codes(capsys):
    assert sendense.cli.main.run(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("Usage: sendense ")
    for phrase in ("0 done", "3 hub unreachable", "4 not found", "6 data damaged", "130"):
        assert phrase in text


def test_unreachable_hub_is_one_line_and_exit_code_3(hub):
    code, out, err = run(hub, "--hub", "127.0.0.1:1", "job", "list")
    assert (code, out) == (3, "")
    assert err.startswith("error: the hub cannot be reached at 127.0.0.1:1: ")
    assert err.count("\n") == 1


def test_unknown_job_is_exit_code_4_and_json(hub):
    code, out, err = run(hub, "--json", "job", "show", "nope")
    assert (code, out) == (4, "")
    assert json.loads(err)["error"]["reason"] == "JOB_NOT_FOUND"


def test_interrupted_wait_leaves_the_job_and_says_how_to_cancel(hub):
    stay = threading.Event()

    def endless() -> Iterator[Backup]:
        yield RUNNING
        stay.wait(60)

    hub.state.watches = [endless()]
    with start(hub, "backup", "start", "pgtest1", "--wait") as process:
        assert "job-1: running" in read_until(process.stderr, "1.0 GiB of 4.0 GiB")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    stay.set()
    assert process.returncode == 130
    assert "goes on; cancel it with: sendense job cancel backup-pgtest1-1" in err
    assert "Traceback" not in err
    assert hub.state.requests("CancelBackup") == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("file_format", ["raw", "qcow2"])
def test_interrupted_restore_leaves_nothing(hub, tmp_path, sent, file_format):
    stay = threading.Event()

    def slow() -> Iterator[Part]:
        yield from stored(draw("AB12" * 4), frame_clusters=1)[:-3]
        stay.wait(60)

    hub.state.restore = slow
    target = tmp_path / "disk"
    words = ("restore", "job-1", "0", "--output", str(target), "--format", file_format)
    with start(hub, *words) as process:
        read_until(process.stderr, "disk 0 (Hard disk 1)")
        assert [path.name for path in tmp_path.iterdir()] == ["disk.partial"]
        process.send_signal(sent)
        _, err = process.communicate(timeout=30)
    stay.set()
    assert process.returncode == 130
    assert err.splitlines()[-1] == f"interrupted; {target} was not written"
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    assert hub.state.stream_ended.wait(10)


def test_interrupt_while_the_command_loads_is_silent():
    program = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored
class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == "sendense.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupter())
sys.argv = ["sendense", "--version"]
from sendense_command import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_damaged_restore_is_exit_code_6(hub, tmp_path):
    hub.state.restore = lambda: stored(draw("A1"))[:-1]
    code, out, err = run(hub, "restore", "job-1", "0", "-o", str(tmp_path / "disk"))
    assert (code, out) == (6, "")
    assert "(STREAM_TRUNCATED)" in err
    assert list(tmp_path.iterdir()) == []


def test_terminal_shows_bars_with_bytes_rate_and_time_left(hub):
    hub.state.watches = [[RUNNING, COMPLETED]]
    screen, terminal = pty.openpty()
    os.set_blocking(screen, True)
    shown = bytearray()

    def read_screen() -> None:
        try:
            while chunk := os.read(screen, 65536):
                shown.extend(chunk)
        except OSError:  # the other side is closed
            return

    reader = threading.Thread(target=read_screen)
    reader.start()
    with start(hub, "job", "watch", "job-1", stderr=terminal) as process:
        os.close(terminal)
        out, _ = process.communicate(timeout=60)
    reader.join(20)
    os.close(screen)
    text = shown.decode()
    assert (process.returncode, out) == (0, "")
    assert "━" in text
    assert "disk 0 (Hard disk 1)" in text
    assert "job-1: completed" in text


def test_reader_that_leaves_early_gets_no_traceback(hub):
    # Several times what a pipe holds.
    hub.state.backups = [Backup(job_id=f"job-{n}" * 100) for n in range(400)]
    with start(hub, "job", "list", "--limit", "400") as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(30)
    assert "Traceback" not in err
