"""The program: site files, the control socket, and the command line as a process."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.control import ControlServer
from simulator.control_client import ControlError, ask
from simulator.disks.disk import DiskSpec
from simulator.disks.link import GRAIN
from simulator.site import SimulatedSite
from simulator.site_file import SiteFileError, default_site, load_site
from simulator.sizes import parse_size
from tests.unit.simulator.conftest import MIB, connect

DEADLINE_S = 60
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("text", "size"),
    [("512", 512), ("102 GiB", 102 << 30), ("1.5MiB", 1572864), ("64 KiB", 65536), (7, 7)],
)
def test_sizes_are_read_with_their_units(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "5 GB", "1e3"])
def test_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


def test_default_site_has_what_agents_must_cope_with(site: SimulatedSite) -> None:
    default_site().build(site)
    vm = site.vm("pgtest1")
    assert [disk.capacity_bytes for disk in vm.disks] == [102 << 30, 5 << 30]
    modes = {disk.mode for one in site.vms for disk in one.disks}
    assert "independent_persistent" in modes
    assert any(len(one.controllers) > 1 for one in site.vms)
    assert any(not one.disks for one in site.vms)
    assert len({one.instance_uuid for one in site.vms}) == len(site.vms)


def test_site_file_describes_vms_disks_and_behaviour(tmp_path: Path, site: SimulatedSite) -> None:
    (tmp_path / "disk.raw").write_bytes(b"image")
    file = tmp_path / "site.toml"
    file.write_text(
        """
        [behaviour]
        page_objects = 7
        shuffle_fragments = true

        [[vm]]
        name = "one"
        power_state = "poweredOff"
        tools_running = false
        change_tracking = true

        [[vm.disk]]
        capacity = "1 MiB"
        image = "disk.raw"

        [[vm.disk]]
        capacity = 512
        mode = "independent_persistent"
        controller = 1
        unit = 3
        key = 2500
        uuid = "6000c298-1111-2222-3333-444455556666"
        """
    )
    spec = load_site(file)
    assert spec.behaviour.page_objects == 7
    assert spec.behaviour.shuffle_fragments
    spec.build(site)
    vm = site.vm("one")
    assert (vm.power_state, vm.tools_running, vm.change_tracking_enabled) == (
        "poweredOff",
        False,
        True,
    )
    assert vm.disks[0].read(0, 6) == b"image\0"
    second = vm.disks[1]
    assert (second.key, second.unit, second.controller, second.mode) == (
        2500,
        3,
        1,
        "independent_persistent",
    )
    assert second.uuid == "6000c298-1111-2222-3333-444455556666"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[[vm]]", "a VM needs a name"),
        ("[[vm]]\nname = 5", "wrong type"),
        ("[[vm]]\nname = 'a'\ncolour = 'red'", "unknown key 'colour'"),
        ("[[vm]]\nname = 'a'\npower_state = 'maybe'", "power_state"),
        ("[[vm]]\nname = 'a'\n[[vm.disk]]", "needs a capacity"),
        ("[[vm]]\nname = 'a'\n[[vm.disk]]\ncapacity = 'big'", "is no size"),
        ("[[vm]]\nname = 'a'\n[[vm.disk]]\ncapacity = 512\nmode = 'x'", "mode is none of"),
        ("[behaviour]\nnonsense = 1", "unknown key 'nonsense'"),
        ("[behaviour]\npage_objects = 'a'", "wrong type"),
        ("not toml", "cannot be read as TOML"),
    ],
)
def test_site_file_with_a_mistake_names_it(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(content)
    with pytest.raises(SiteFileError, match=said) as error:
        load_site(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[[vm]]\nname = 'a'\n[[vm.disk]]\ncapacity = 1000", "multiple of 512"),
        ("[[vm]]\nname = 'a'\n[[vm.disk]]\ncapacity = 512\nimage = 'none.raw'", "none.raw"),
    ],
)
def test_site_whose_disks_cannot_be_made_names_the_vm(
    tmp_path: Path, site: SimulatedSite, content: str, said: str
) -> None:
    file = tmp_path / "site.toml"
    file.write_text(content)
    with pytest.raises(SiteFileError, match=said):
        load_site(file).build(site)


@pytest.fixture
def control(site: SimulatedSite) -> Iterator[Path]:
    server = ControlServer(site.state_dir / "control.sock", site)
    server.start()
    yield server.path
    server.close()


def test_control_socket_acts_as_guest_and_administrator(site: SimulatedSite, control: Path) -> None:
    vm = site.add_vm("one", [DiskSpec(MIB)], change_tracking_enabled=True)

    def tell(command: str, **fields: Any) -> Any:
        return ask(control, {"command": command, "vm": "one", "disk": 0, **fields})

    tell("write", offset=0, data="QUJD")
    assert vm.disks[0].read(0, 4) == b"ABC\0"
    assert tell("content", offset=1, length=2)["data"] == "QkM="
    tell("snapshot", name="s")
    tell("zero", offset=0, length=1)
    tell("trim", offset=GRAIN, length=GRAIN)
    (snapshot,) = tell("snapshots")["snapshots"]
    assert snapshot["name"] == "s"
    assert snapshot["disks"]["2000"]["change_id"]
    (facts,) = tell("vms")["vms"]
    assert facts["snapshots"] == 1
    tell("revert", snapshot="s")
    assert vm.disks[0].read(0, 3) == b"ABC"
    tell("remove-snapshot", snapshot="s")
    assert vm.snapshots == []
    assert tell("grow", capacity=2 * MIB)["capacity"] == 2 * MIB
    assert tell("power", state="suspended")["power_state"] == "suspended"
    tell("reset-tracking")
    assert tell("expire-sessions")["ended"] == 0


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"command": "dance"}, "unknown command 'dance'"),
        ({}, "unknown command None"),
        ({"command": "write", "vm": "none"}, "no VM 'none'; there are: one"),
        ({"command": "write", "vm": "one", "disk": 7}, "no disk 7; it has: 0 .key 2000."),
        ({"command": "zero", "vm": "one", "disk": 0, "offset": 0}, "missing or wrong field"),
        (
            {"command": "zero", "vm": "one", "disk": 0, "offset": MIB, "length": 1},
            "not inside",
        ),
        ({"command": "revert", "vm": "one", "snapshot": "x"}, "no snapshot 'x'"),
        ({"command": "power", "vm": "one", "state": "x"}, "none of poweredOn"),
        (
            {"command": "write", "vm": "one", "disk": 0, "offset": 0, "file": "/no/such/file"},
            "No such file",
        ),
    ],
)
def test_control_request_that_makes_no_sense_is_told_why(
    site: SimulatedSite, control: Path, request_: dict[str, Any], said: str
) -> None:
    site.add_vm("one", [DiskSpec(MIB)])
    with pytest.raises(ControlError, match=said):
        ask(control, request_)


def test_asking_without_a_simulator_says_so(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="is the simulator running"):
        ask(tmp_path / "control.sock", {"command": "vms"})


def test_recorded_snapshot_is_the_disk_as_frozen(tmp_path: Path) -> None:
    with SimulatedSite(tmp_path, record_snapshots=True) as site:
        vm = site.add_vm("one", [DiskSpec(102 << 30), DiskSpec(MIB, controller=1)])
        vm.disks[0].write(50 << 30, b"first")
        vm.create_snapshot("a/1")
        vm.disks[0].write(50 << 30, b"later")
        vm.create_snapshot("b")
        recorded = site.recorded / "a%2F1"
        assert sorted(path.name for path in recorded.iterdir()) == [
            "disk-2000.raw",
            "disk-2016.raw",
        ]
        copy = recorded / "disk-2000.raw"
        assert copy.stat().st_size == 102 << 30
        assert copy.stat().st_blocks * 512 < MIB
        with copy.open("rb") as file:
            file.seek(50 << 30)
            assert file.read(6) == b"first\0"


def test_state_folder_serves_one_simulator_at_a_time(site: SimulatedSite) -> None:
    with pytest.raises(BlockingIOError, match="another simulator"):
        SimulatedSite(site.state_dir)


@pytest.fixture
def command() -> Command:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "simulator", *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        )

    return run


def test_program_serves_until_it_is_told_to_stop(tmp_path: Path, command: Command) -> None:
    state, ready = tmp_path / "state", tmp_path / "ready.json"
    arguments = ["run", "--state-dir", str(state), "--port", "0", "--nfc-port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", *arguments, "--ready-file", str(ready)],
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert select.select([process.stderr], [], [], DEADLINE_S)[0], "not ready in time"
        assert b"simulated ESXi at" in process.stderr.readline()
        facts = json.loads(ready.read_text())
        socket = ["--control", facts["control"]]
        for arguments in (
            ["write", "pgtest1", "0", "--offset", "1 GiB", "--text", "hello"],
            ["write", "pgtest1", "1", "--offset", "0", "--random", "3 MiB"],
            ["zero", "pgtest1", "1", "--offset", "0", "--length", "64KiB"],
            ["snapshot", "pgtest1", "mine"],
        ):
            done = command(*arguments, *socket)
            assert done.returncode == 0, done.stderr
        shown = command("content", "pgtest1", "2000", "--offset", "1GiB", "--length", "5", *socket)
        assert shown.stdout == "hello"
        assert "pgtest1" in command("vms", *socket).stdout
        assert "mine" in command("snapshots", "pgtest1", *socket).stdout
        (vm,) = [
            one
            for one in json.loads(command("vms", "--json", *socket).stdout)
            if one["name"] == "pgtest1"
        ]
        assert vm["snapshots"] == 1
        wrong = command("grow", "pgtest1", "0", "--capacity", "200 GiB", *socket)
        assert wrong.returncode == 1
        assert "snapshots cannot grow" in wrong.stderr
        taken = command("run", "--state-dir", str(state), "--port", "0", "--nfc-port", "0")
        assert taken.returncode == 1
        assert "another simulator" in taken.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
        process.stderr.close()  # type: ignore[union-attr]
    assert not ready.exists()
    assert not (state / "control.sock").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["write", "a", "0", "--offset", "5x", "--text", "a"], "is no size"),
        (["write", "a", "0", "--offset", "5"], "exactly one of --text"),
        (["vms"], "is the simulator running"),
        (["run", "--state-dir", "s", "--site", "/no/such.toml"], "no such site file"),
        (["run", "--state-dir", "s", "--listen", "203.0.113.1"], "cannot start on 203.0.113.1"),
    ],
)
def test_command_that_cannot_be_done_says_why(
    tmp_path: Path, command: Command, arguments: list[str], said: str
) -> None:
    arguments = [str(tmp_path / "s") if one == "s" else one for one in arguments]
    if arguments[0] != "run":
        arguments += ["--control", str(tmp_path / "control.sock")]
    done = command(*arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_site_closes_while_clients_are_connected(tmp_path: Path) -> None:
    site = SimulatedSite(tmp_path / "site")
    site.start()
    connect(site)
    site.close()
    site.close()
    with pytest.raises(OSError):
        connect(site)
