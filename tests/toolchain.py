"""The programs that `make tools` makes ready: grpcurl, govc, vcsim, Go, Node and plugins."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
TOOLS: Final = ROOT / "build" / "tools"
BIN: Final = TOOLS / "bin"


def tool(name: str) -> Path:
    """Full path of a program of build/tools/bin.

    One that is missing skips the calling test, by name; with CI=true it fails it.
    """
    return present(BIN / name)


def present(program: Path) -> Path:
    """That program, which `make tools` brings. A missing one skips or fails as in `tool`."""
    if program.exists():
        return program
    problem = f"{program.relative_to(ROOT)} is missing; `make tools` puts it there"
    if os.environ.get("CI") == "true":
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)


def environment() -> Mapping[str, str]:
    """For running them: found on PATH, with the Go build cache of `make tools` and no network."""
    return os.environ | {
        "PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}",
        "CGO_ENABLED": "0",
        "GOCACHE": str(TOOLS / "go-cache"),
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
