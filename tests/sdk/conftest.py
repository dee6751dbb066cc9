"""The generated clients: made from the protos, built as a user would, run against a live hub."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

# One site, one hub and one agent as processes, as the end-to-end tests have them.
from tests.end_to_end.conftest import agent, cleanup, client, hub, site
from tests.toolchain import ROOT, environment, present, tool

__all__ = ["agent", "cleanup", "client", "hub", "site"]

STEP_TIMEOUT_S: Final = 100


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.sdk)


def run(command: Sequence[str | Path], folder: Path) -> str:
    """A step of a build; returns its output. Raises AssertionError showing what it said."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=STEP_TIMEOUT_S,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return done.stdout


@dataclass(frozen=True)
class Sources:
    """A copy of the sources of both clients, with what is generated from today's protos."""

    go: Path
    typescript: Path


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    for name in ("protoc-gen-go", "protoc-gen-go-grpc", "node"):
        tool(name)
    packages = ROOT / "sdk" / "typescript" / "node_modules"
    present(packages / ".bin" / "protoc-gen-es")
    copy = tmp_path_factory.mktemp("clients")
    made = shutil.ignore_patterns("gen", "dist", "node_modules")
    for language in ("go", "typescript"):
        shutil.copytree(ROOT / "sdk" / language, copy / "sdk" / language, ignore=made)
    (copy / "sdk" / "typescript" / "node_modules").symlink_to(packages)
    run([sys.executable, ROOT / "scripts" / "generate_clients.py", "--output", copy], ROOT)
    return Sources(go=copy / "sdk" / "go", typescript=copy / "sdk" / "typescript")


@pytest.fixture(scope="session")
def go_example(sources: Sources) -> list[str | Path]:
    run([tool("go"), "build", "-o", "backup", "./examples/backup"], sources.go)
    return [sources.go / "backup"]


@pytest.fixture(scope="session")
def typescript_example(sources: Sources) -> list[str | Path]:
    run([tool("node"), "node_modules/.bin/tsc", "--skipLibCheck"], sources.typescript)
    return [tool("node"), sources.typescript / "dist" / "backup.js"]


Example = Callable[..., subprocess.Popen[str]]


@pytest.fixture(params=["go", "typescript"])
def example(request: pytest.FixtureRequest, cleanup: ExitStack) -> Example:
    """Start the example of each language: `example("--hub", address, "vm")`."""
    command: list[str | Path] = request.getfixturevalue(f"{request.param}_example")

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        cleanup.callback(process.kill)
        return process

    return start
