#!/usr/bin/env python3
"""Generate the Go and TypeScript clients from protos/: `make clients`.

Standard library only, Python 3.11. What it needs is made ready by `make tools`
(the pinned plugins) and `make setup` (buf). Nothing is downloaded.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from steps import ROOT, VENV_PYTHON, fail

BIN = ROOT / "build" / "tools" / "bin"
BUF = VENV_PYTHON.parent / "buf"
ERROR_DETAILS = Path("google/rpc/error_details.proto")
TIMEOUT_S = 300


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT, help="instead of this checkout")
    output = parser.parse_args(arguments).output
    # buf and the plugin for TypeScript are run with the Node that `make tools` chose.
    environment = os.environ | {"PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}"}
    try:
        generate(["buf.gen.yaml"], output, environment)
        # Go has a package of these; TypeScript's are made from the file that Python's brings.
        with tempfile.TemporaryDirectory() as folder:
            proto = Path(folder) / ERROR_DETAILS
            proto.parent.mkdir(parents=True)
            shutil.copy(python_packages() / ERROR_DETAILS, proto)
            generate(["sdk/typescript/error_details.gen.yaml", folder], output, environment)
    except (OSError, subprocess.SubprocessError) as problem:
        fail(f"the clients were not generated: {problem}; `make tools` tells of missing plugins")
    return 0


def generate(what: Sequence[str], output: Path, environment: dict[str, str]) -> None:
    """Run buf with a template and what to read, if that is not the template's own input."""
    subprocess.run(
        [BUF, "generate", "--output", output, "--template", *what],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT_S,
        check=True,
    )


def python_packages() -> Path:
    """Where .venv keeps its packages."""
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    answer = subprocess.run(
        [VENV_PYTHON, "-c", ask], capture_output=True, text=True, timeout=60, check=True
    )
    return Path(answer.stdout.strip())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
