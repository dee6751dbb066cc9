"""The examples of the Python client, with nothing of Sendense but the `sendense` wheel installed."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

from sendense import Client
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite
from tests.end_to_end.processes import Agent, Hub, wait_for
from tests.end_to_end.restores import Witness

pytestmark = pytest.mark.sdk

ROOT: Final = Path(__file__).resolve().parents[2]
EXAMPLES: Final = ROOT / "sdk" / "examples"
# What the client must not need: the programs' code, and the libraries that only they use.
SERVER_MODULES: Final = (
    *("hub", "agent", "shared", "simulator", "sqlalchemy", "alembic", "pymysql", "pyVmomi"),
    *("structlog", "tenacity", "grpc_reflection", "cryptography"),
)
MIB = 1 << 20


def _run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `sendense` wheel, built from a copy: building writes the stubs beside the sources."""
    copy = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "protos", copy / "protos")
    made = shutil.ignore_patterns("v1", "__pycache__")
    shutil.copytree(ROOT / "sdk" / "sendense", copy / "sdk" / "sendense", ignore=made)
    (copy / "sdk" / "sendense" / "v1").mkdir()
    shutil.copy(ROOT / "sdk/sendense/v1/__init__.py", copy / "sdk/sendense/v1/__init__.py")
    for name in ("README.md", "build_stubs.py", "pyproject.toml", "sendense_command.py"):
        shutil.copy(ROOT / "sdk" / name, copy / "sdk" / name)
    # The development environment has what builds it: no network, no index.
    build = ("--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", copy / "dist")
    _run(sys.executable, "-m", "pip", "wheel", *build, copy / "sdk", folder=copy)
    (built,) = (copy / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel and just what the wheel declares to need.

    The packages it needs are those of the development environment, file by file:
    nothing else of that environment can be imported.
    """
    folder = tmp_path_factory.mktemp("fresh")
    _run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    _run(*pip, "install", "--no-index", "--no-deps", wheel, folder=folder)
    (site_packages,) = (folder / "venv" / "lib").glob("python3.*/site-packages")
    needed = folder / "needed"
    for distribution in _needed_by(site_packages):
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                link = needed / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(str(distribution.locate_file(file))))
    (site_packages / "needed.pth").write_text(f"{needed}\n")
    _run(*pip, "check", folder=folder)
    return python


def _needed_by(site_packages: Path) -> list[importlib.metadata.Distribution]:
    """The distributions that `sendense` there requires, directly or not."""
    (sendense,) = importlib.metadata.distributions(name="sendense", path=[str(site_packages)])
    found: dict[str, importlib.metadata.Distribution] = {}
    open_requirements = list(sendense.requires or ())
    while open_requirements:
        requirement = Requirement(open_requirements.pop())
        name = requirement.name.lower().replace("_", "-")
        if name in found or (requirement.marker and not requirement.marker.evaluate()):
            continue
        found[name] = importlib.metadata.distribution(name)
        open_requirements += found[name].requires or ()
    return list(found.values())


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def example(python: Path, hub: Hub, tmp_path: Path) -> Run:
    """Run an example of the client against the hub: `example("start_and_wait", "vm")`."""

    def run(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-I", EXAMPLES / f"{name}.py", "--hub", hub.address, *words],
            cwd=tmp_path,
            env={"PATH": os.defpath, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return run


def test_wheel_holds_the_client_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {Path(name).parts[0] for name in names} == {
        "sendense",
        "sendense_command.py",
        f"{'-'.join(wheel.name.split('-')[:2])}.dist-info",
    }
    for proto in (ROOT / "protos" / "sendense" / "v1").glob("*.proto"):
        assert f"sendense/v1/{proto.stem}_pb2.py" in names
    assert "sendense/py.typed" in names


def test_environment_of_the_examples_has_nothing_of_hub_and_agent(
    python: Path, tmp_path: Path
) -> None:
    program = (
        "import importlib.util, sys, sendense\n"
        "print(sendense.__file__)\n"
        "print([m for m in sys.argv[1:] if importlib.util.find_spec(m)])\n"
    )
    # The question itself finds those modules where they are.
    found = _run(sys.executable, "-c", program, *SERVER_MODULES, folder=ROOT).splitlines()
    assert found[1] == str(list(SERVER_MODULES))
    place, found_here = _run(
        python, "-I", "-c", program, *SERVER_MODULES, folder=tmp_path
    ).splitlines()
    assert Path(place).is_relative_to(python.parents[1])
    assert found_here == "[]"
    assert _run(python.with_name("sendense"), "--version", folder=tmp_path).startswith("sendense ")


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_example_has_help_and_tells_of_a_hub_that_is_away(
    python: Path, tmp_path: Path, name: str
) -> None:
    command = [python, "-I", EXAMPLES / f"{name}.py"]
    assert "--hub" in _run(*command, "--help", folder=tmp_path)
    words = {"start_and_wait": ["vm"], "restore_to_file": ["vm", "file"], "nightly_report": []}
    done = subprocess.run(
        [*command, *words[name], "--hub", "127.0.0.1:1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (3 if name == "nightly_report" else 1)
    assert done.stderr.startswith("error: the hub cannot be reached at 127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []


def test_examples_back_up_report_and_restore(
    example: Run, site: SimulatedSite, agent: Agent, client: Client, tmp_path: Path
) -> None:
    content = b"payload" * 300_000
    vm = site.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=8 * MIB + 512, content=content)])
    site.add_vm("second", disks=[DiskSpec(capacity_bytes=2 * MIB, content=b"x" * MIB)])
    agent.start()

    report = example("nightly_report")
    assert report.returncode == 1, report.stderr
    assert "\n  pgtest1 (lab)\n  second (lab)\n" in report.stdout
    assert report.stdout.endswith("\n0 VMs failed, 2 are not protected\n")

    for name, kind in (("pgtest1", "full"), ("second", "full"), ("pgtest1", "incremental")):
        done = example("start_and_wait", name)
        assert done.returncode == 0, done.stderr
        assert f"completed: {kind}, 1 disks, " in done.stdout
    report = example("nightly_report")
    assert report.returncode == 0, report.stdout
    assert report.stdout.endswith("\n0 VMs failed, 0 are not protected\n")
    newest = next(client.list_backups(vm_name="pgtest1"))
    assert report.stdout.count("  completed  ") == 3

    done = example("restore_to_file", "pgtest1", "disk.raw")
    assert done.returncode == 0, done.stderr
    assert Witness.of_file(tmp_path / "disk.raw") == Witness.of_disk(vm.disks[0])
    root = client.get_disk(newest.job_id, 0).disk.root_digest
    assert f"disk 0 of {newest.job_id}, " in done.stdout
    assert done.stdout.endswith(f"\nroot digest {root}\n")
    assert "100 %" in done.stderr
    done = example("restore_to_file", "pgtest1", "disk.qcow2", "--format", "qcow2")
    assert done.returncode == 0, done.stderr
    before = Witness.of_file(tmp_path / "disk.raw")
    again = example("restore_to_file", "second", "disk.raw")
    assert again.returncode == 1
    assert "(TARGET_EXISTS): --overwrite replaces it" in again.stderr
    assert Witness.of_file(tmp_path / "disk.raw") == before
    files = (tmp_path / "disk.raw", tmp_path / "disk.qcow2")
    _run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", *files, folder=tmp_path)


def test_examples_tell_of_what_goes_wrong(
    example: Run, site: SimulatedSite, agent: Agent, client: Client, tmp_path: Path
) -> None:
    site.add_vm("empty", disks=[])
    agent.start()
    done = example("start_and_wait", "empty")
    assert done.returncode == 1
    assert "did not complete: " in done.stdout
    assert "(NO_DISKS)" in done.stdout
    report = example("nightly_report")
    assert report.returncode == 1
    assert "\nempty (lab) in default: NEEDS A LOOK\n" in report.stdout
    assert report.stdout.endswith("\n1 VMs failed, 1 are not protected\n")

    for words, reason in (
        (("start_and_wait", "nobody"), "VM_NOT_FOUND"),
        (("restore_to_file", "nobody", "other.raw"), "VM_NOT_FOUND"),
        (("restore_to_file", "empty", "other.raw", "--job", "none"), "JOB_NOT_FOUND"),
    ):
        done = example(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"({reason})" in done.stderr
    done = example("restore_to_file", "empty", "other.raw")
    assert (done.returncode, done.stderr) == (1, "error: VM empty has no restore point\n")
    failed = next(client.list_backups(vm_name="empty")).job_id
    done = example("restore_to_file", "nobody", "other.raw", "--job", failed)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: backup {failed} is of VM empty of site lab\n"
    assert list(tmp_path.glob("*.raw")) == []

    # What an agent that is away said last may not be so any more.
    agent.stop()
    wait_for("agent gone", lambda: not client.get_agent("lab").connected)
    report = example("nightly_report")
    assert report.returncode == 1
    assert "\n  lab: its agent is away, last heard of 20" in report.stdout
    assert "are known to be not protected\n" in report.stdout
