"""The programs that `make tools` makes ready: grpcurl, Go, Node and the protoc plugins."""

import os
from pathlib import Path
from typing import Final

import pytest

BIN: Final = Path(__file__).resolve().parent.parent / "build" / "tools" / "bin"


def tool(name: str) -> Path:
    """Full path of a program of build/tools/bin.

    One that is missing skips the calling test, by name; with CI=true it fails it.
    """
    program = BIN / name
    if program.exists():
        return program
    problem = f"{name} is missing in build/tools/bin; `make tools` puts it there"
    if os.environ.get("CI") == "true":
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)
