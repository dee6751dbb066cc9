"""Faults and disk changes over the control socket, on the command line, in the site file."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from simulator.cli import app
from simulator.control import ControlServer
from simulator.control_client import ControlError, ask
from simulator.disks.link import GRAIN
from simulator.faults.kind import Place
from simulator.faults.nfc_kinds import NfcCut
from simulator.faults.registry import KINDS, described
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from simulator.site_file import SiteFileError, load_site
from tests.unit.simulator.conftest import MIB

pytestmark = pytest.mark.hostile


@pytest.fixture
def control(site: SimulatedSite, vm: SimulatedVm) -> Iterator[Path]:
    server = ControlServer(site.state_dir / "control.sock", site)
    server.start()
    yield server.path
    server.close()


@pytest.fixture
def told(control: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command of the program; what it printed."""
    monkeypatch.setenv("SENDENSE_SIMULATOR_CONTROL", str(control))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, fails: bool = False) -> str:
        done: Result = CliRunner().invoke(app, list(arguments))
        assert (done.exit_code != 0) is fails, done.output
        return done.output

    return run


def test_fault_is_set_seen_fired_and_cleared_over_the_socket(
    site: SimulatedSite, vm: SimulatedVm, control: Path
) -> None:
    made = ask(
        control,
        {
            "command": "fault-set",
            "name": "nfc-cut",
            "vm": "db 1",
            "disk": 1,
            "times": 1,
            "options": {"at_byte": "1 MiB"},
        },
    )["fault"]
    assert (made["vm"], made["disk"], made["options"]) == ("db 1", 2016, {"at_byte": MIB})
    assert site.faults.fire(NfcCut, Place(vm.moid, 2016), at_byte=MIB)
    (listed,) = ask(control, {"command": "fault-list"})["faults"]
    assert (listed["fired"], listed["live"]) == (1, False)
    assert listed["last"] == {"vm": vm.moid, "disk": 2016, "at_byte": MIB}
    assert ask(control, {"command": "fault-clear", "which": made["number"]})["cleared"] == [listed]
    assert ask(control, {"command": "fault-list"})["faults"] == []


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"command": "fault-set", "name": "nfc-rot"}, "no fault is named 'nfc-rot'"),
        ({"command": "fault-set"}, "missing or wrong field"),
        ({"command": "fault-set", "name": "nfc-cut", "options": [1]}, "options is an object"),
        ({"command": "fault-set", "name": "nfc-cut", "times": "x"}, "times is a number"),
        ({"command": "fault-clear", "which": 9}, "no fault has the number 9"),
        ({"command": "move-disk", "vm": "db 1", "disk": 0, "controller": 9}, "not 0 to 3"),
        ({"command": "reorder-disks", "vm": "db 1", "order": [0]}, "name each disk once"),
        ({"command": "change-certificate", "of": "moon"}, "neither host nor nfc"),
        ({"command": "add-disk", "vm": "db 1", "capacity": 512, "uuid": "x"}, "badly formed"),
    ],
)
def test_request_that_makes_no_sense_is_told_why(
    control: Path, request_: dict[str, Any], said: str
) -> None:
    with pytest.raises(ControlError, match=said):
        ask(control, request_)


def test_every_fault_is_listed_by_the_program(told: Any) -> None:
    shown = told("fault", "kinds")
    assert all(name in shown for name in KINDS)
    (one,) = json.loads(told("fault", "kinds", "cbt-omit", "--json"))
    assert [option["name"] for option in one["options"]] == ["offset", "length", "fraction", "seed"]
    assert "no fault is named 'x'" in told("fault", "kinds", "x", fails=True)


@pytest.mark.parametrize("columns", ["80", "200"])
def test_kinds_of_faults_are_told_whole_without_a_simulator(columns: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SENDENSE_")}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "sendense-simulator"), "fault", "kinds"],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | {"COLUMNS": columns, "PYTHONIOENCODING": "utf-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "…" not in done.stdout
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if line.startswith("│")]
    assert {row[0].strip() for row in rows} == {*KINDS, ""}
    # Words as defaults and words that are longer than their column: folded, none lost.
    options = "".join(row[3].strip() for row in rows).replace(" ", "")
    texts = (option for kind in described() for option in kind["options"])
    for option in texts:
        values = "|".join(option["values"] or [option["type"]])
        default = "" if option["default"] is None else f"[{option['default']}]"
        assert f"{option['name']}={values}{default}".replace(" ", "") in options
    assert "on=call|read[call]" in options


def test_names_are_shown_as_they_are_in_narrow_tables(site: SimulatedSite, control: Path) -> None:
    site.add_vm("[red]Büro[/red] [/x] ✓ " + "long" * 20, [])
    snapshot = site.vm("db 1").create_snapshot("[bold]by hand[/] é✓")
    environment = os.environ | {"COLUMNS": "80", "PYTHONIOENCODING": "latin-1"}
    shown = {}
    for command in ("vms", "snapshots"):
        done = subprocess.run(
            [str(Path(sys.executable).parent / "sendense-simulator"), command,
             "--control", str(control)],
            capture_output=True, timeout=60, env=environment,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        lines = done.stdout.decode("latin-1").splitlines()
        rows = [line for line in lines if line.startswith("|") and "-+-" not in line]
        cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
        shown[command] = ["".join(column).replace(" ", "") for column in zip(*cells, strict=True)]
    assert ("[red]Büro[/red][/x]\\u2713" + "long" * 20) in shown["vms"][0]
    assert "[bold]byhand[/]é\\u2713" in shown["snapshots"][1]
    assert snapshot.moid in shown["snapshots"][2]


def test_program_sets_lists_and_clears_faults(site: SimulatedSite, told: Any) -> None:
    order = ("cbt-omit", "fraction=0.25", "seed=7", "--vm", "db 1", "--times", "2", "--skip", "1")
    assert told("fault", "set", *order) == "fault 1 is set\n"
    (fault,) = site.faults.list()
    assert fault.kind.model_dump(exclude_none=True) == {"fraction": 0.25, "seed": 7}
    assert (fault.times, fault.skip) == (2, 1)
    assert "fraction=0.25 seed=7" in told("fault", "list")
    made = json.loads(told("fault", "set", "task-stall", "--json"))
    assert json.loads(told("fault", "list", "--json"))[1] == made
    assert told("fault", "clear", "1") == "cleared 1 faults\n"
    assert told("fault", "clear", "task-stall") == "cleared 1 faults\n"
    told("fault", "set", "nfc-cut", "--vm", "db 1")
    told("fault", "set", "nfc-cut")
    assert told("fault", "clear", "--vm", "db 1") == "cleared 1 faults\n"
    assert told("fault", "clear", "--all") == "cleared 1 faults\n"
    assert site.faults.list() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "nfc-cut", "at_byte"], "OPTION=VALUE"),
        (["set", "nfc-cut", "at_byte=x"], "at_byte: 'x' is no size"),
        (["set", "session-expiry", "--vm", "db 1"], "cannot be set for one vm alone"),
        (["clear"], "a number, a name, --vm or --all"),
        (["clear", "--all", "1"], "a number, a name, --vm or --all"),
        (["clear", "17"], "no fault has the number 17"),
        (["clear", "²"], "no fault is named '²'"),
        (["clear", "9" * 5000], "no fault is named '999"),
        (["clear", "[/x]"], "no fault is named '[/x]'"),
        (["clear", "nfc-cut"], "no fault 'nfc-cut' is set\n"),
        (["clear", "nfc-cut", "--vm", "db 1"], "no fault 'nfc-cut' is set for db 1\n"),
        (["clear", "--vm", "db 1"], "no fault is set for db 1\n"),
        (["set", "[/x]"], "no fault is named '[/x]'"),
        (["set", "nfc-cut", "[/x]=1"], "[/x]: Extra inputs"),
        (["set", "nfc-cut", "[/x]"], "[/x]: an option is given"),
        (["set", "method-fail", "method=CreateSnapshot"], "near it are: CreateSnapshot_Task"),
        (["set", "task-fail", "method=CurrentTime"], "no task is started by 'CurrentTime'"),
    ],
)
def test_program_says_why_a_fault_cannot_be_set_or_cleared(
    told: Any, arguments: list[str], said: str
) -> None:
    assert said in told("fault", *arguments, fails=True)


def test_program_changes_disks(told: Any, site: SimulatedSite, vm: SimulatedVm) -> None:
    first, second = vm.disks
    added = told("add-disk", "db 1", "--capacity", "1 MiB", "--controller", "2", "--unit", "4")
    assert added.startswith("Hard disk 3: key 2036, controller 2, unit 4, uuid ")
    assert "key 2049" in told("move-disk", "db 1", "2036", "--controller", "3", "--unit", "1")
    told("reorder-disks", "db 1", "2016", "0", "2049")
    assert (first.key, second.key) == (2016, 2000)
    told("remove-disk", "db 1", "2049")
    assert vm.disks == [second, first]
    assert "has no disk 9" in told("remove-disk", "db 1", "9", fails=True)


def test_program_makes_an_old_snapshot_and_cuts_the_power(
    told: Any, vm: SimulatedVm, site: SimulatedSite
) -> None:
    told("snapshot", "db 1", "forgotten", "--age-h", "720")
    (snapshot,) = json.loads(told("snapshots", "--json"))
    assert snapshot["created"] < vm.created_at.isoformat()
    vm.reconfigure(change_tracking_enabled=True)
    vm.power("poweredOff")
    vm.power("poweredOn")
    tracking = vm.disks[0].tracking
    told("power-loss", "db 1")
    assert tracking is not None
    assert vm.disks[0].tracking is not tracking


@pytest.mark.parametrize("of", ["host", "nfc"])
def test_program_changes_certificates(told: Any, site: SimulatedSite, of: str) -> None:
    before = site.certificate_sha256
    now = told("change-certificate", "--of", of).strip()
    assert now != before
    assert (site.certificate_sha256 == now) is (of == "host")


def test_site_file_sets_faults(tmp_path: Path, site: SimulatedSite) -> None:
    file = tmp_path / "site.toml"
    file.write_text(
        """
        [[vm]]
        name = "one"
        [[vm.disk]]
        capacity = "1 MiB"

        [[fault]]
        name = "cbt-slice-bytes"
        vm = "one"
        disk = 0
        bytes = "64 KiB"

        [[fault]]
        name = "nfc-stall"
        times = 1
        """
    )
    load_site(file).build(site)
    first, second = site.faults.list()
    assert str(first) == f"cbt-slice-bytes on one disk 2000 bytes={GRAIN}"
    assert second.times == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("vm = 'one'", "a fault needs a name"),
        ("name = 'nfc-rot'", "no fault is named 'nfc-rot'"),
        ("name = 'nfc-cut'\nvm = 'two'", "no VM 'two'; there are: one"),
        ("name = 'nfc-cut'\ntimes = 'x'", "times is a number"),
    ],
)
def test_site_file_with_a_bad_fault_names_it(
    tmp_path: Path, site: SimulatedSite, fault: str, said: str
) -> None:
    file = tmp_path / "site.toml"
    file.write_text(f"[[vm]]\nname = 'one'\n[[fault]]\n{fault}\n")
    with pytest.raises(SiteFileError, match=said):
        load_site(file).build(site)


def test_disk_that_is_added_may_start_from_an_image(
    tmp_path: Path, site: SimulatedSite, vm: SimulatedVm, control: Path
) -> None:
    (tmp_path / "image.raw").write_bytes(b"image")
    request = {"command": "add-disk", "vm": "db 1", "capacity": MIB}
    made = ask(control, {**request, "file": str(tmp_path / "image.raw"), "key": 2500, "unit": 9})
    assert made["key"] == 2500
    assert vm.find_disk(2500).read(0, 6) == b"image\0"
    with pytest.raises(ControlError, match="No such file"):
        ask(control, {**request, "file": str(tmp_path / "none.raw")})
    assert len(vm.disks) == 3
    assert ask(control, request)["label"] == "Hard disk 4"  # nothing of the failed one is left
