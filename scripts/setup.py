#!/usr/bin/env python3
"""Make this checkout ready to run: Debian programs, `.venv`, pinned Python packages.

Standard library only, Python 3.11. Called by `make setup`, which every other
target depends on. When nothing changed since the last run it installs nothing
and needs no network: a stamp in `.venv` names what was installed. Everything
the installers print goes to build/setup.log; errors are shown.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from steps import LOG, ROOT, VENV, VENV_PYTHON, StepFailed, fail, lock, run, say

STAMP = VENV / "sendense-setup.stamp"

OLDEST_PYTHON = (3, 11)


class Program(NamedTuple):
    """A program that must be there, and the Debian package that brings it."""

    name: str
    package: str
    use: str


# The -core packages of MariaDB bring the server program without the system
# service: the catalog tests start private servers of their own.
PROGRAMS = (
    Program("qemu-img", "qemu-utils", "judges layers: in tests, demo, benchmark, and old ones"),
    Program("qemu-nbd", "qemu-utils", "reads the layers of an earlier system"),
    Program("mkfs.ext4", "e2fsprogs", "makes the file system of the demo's disk"),
    Program("debugfs", "e2fsprogs", "finds files on the demo's disk"),
    Program("mariadbd", "mariadb-server-core", "catalog tests"),
    Program("mariadb-install-db", "mariadb-server-core", "catalog tests"),
    Program("my_print_defaults", "mariadb-client-core", "catalog tests"),
)


def main() -> int:
    if sys.version_info < OLDEST_PYTHON:
        fail(
            f"Python {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed, this is {sys.version.split()[0]}"
        )
    with lock():
        try:
            install_programs()
            wanted = fingerprint()
            if not installed(wanted):
                install_python_packages()
                STAMP.write_text(wanted + "\n")
                say("setup: done")
        except StepFailed as error:
            fail(str(error))
    return 0


# --- Debian programs ----------------------------------------------------------


def install_programs() -> None:
    """Install the Debian packages of missing programs, or end with how to do it."""
    missing = sorted({p.package for p in PROGRAMS if find_program(p.name) is None})
    if not venv_can_be_made():
        missing.append("python3-venv")
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        explain_missing(missing)
    say(f"setup: installing Debian packages: {' '.join(missing)}")
    apt_get = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run("update of the package lists", [*apt_get, "update"], environment)
    run(
        "installation of Debian packages",
        [*apt_get, "install", "--no-install-recommends", *missing],
        environment,
    )
    absent = sorted({p.package for p in PROGRAMS if find_program(p.name) is None})
    if absent:
        fail(f"apt-get succeeded, but programs of {', '.join(absent)} are still missing; see {LOG}")


def find_program(name: str) -> str | None:
    """Path of a program; the folders of system programs count though a user's PATH lacks them."""
    search = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(name, path=search)


def venv_can_be_made() -> bool:
    """Debian splits ensurepip off into python3-venv; an existing .venv does not need it."""
    if VENV_PYTHON.exists():
        return True
    check = subprocess.run(
        [sys.executable, "-c", "import ensurepip, venv"], capture_output=True, timeout=60
    )
    return check.returncode == 0


def explain_missing(packages: Sequence[str]) -> NoReturn:
    lines = ["these Debian packages are missing and cannot be installed from here:"]
    for package in packages:
        uses = sorted({p.use for p in PROGRAMS if p.package == package}) or ["makes .venv"]
        lines.append(f"  {package:22} {'; '.join(uses)}")
    lines += [
        "As root, on Debian or Ubuntu:",
        f"  apt-get update && apt-get install --no-install-recommends {' '.join(packages)}",
        "On other systems install the programs of the same names, then run make again.",
    ]
    fail("\n".join(lines))


# --- Python packages ----------------------------------------------------------


def fingerprint() -> str:
    """A hash of everything an installation depends on, place and Python included."""
    files = [
        ROOT / "pyproject.toml",
        ROOT / "constraints.txt",
        ROOT / "sdk" / "pyproject.toml",
        ROOT / "sdk" / "build_stubs.py",
        *sorted((ROOT / "protos").rglob("*.proto")),
    ]
    hasher = hashlib.sha256(f"{ROOT}\0{sys.version}\0".encode())
    for file in files:
        content = file.read_bytes()
        hasher.update(f"{file.relative_to(ROOT)}\0{len(content)}\0".encode())
        hasher.update(content)
    return hasher.hexdigest()


def installed(wanted: str) -> bool:
    """True when .venv holds just that; the generated stubs may have been deleted since."""
    stubs = ROOT / "sdk" / "sendense" / "v1"
    protos = sorted((ROOT / "protos" / "sendense" / "v1").glob("*.proto"))
    return (
        STAMP.exists()
        and STAMP.read_text().strip() == wanted
        and VENV_PYTHON.exists()
        and all((stubs / f"{proto.stem}_pb2.py").exists() for proto in protos)
    )


def install_python_packages() -> None:
    STAMP.unlink(missing_ok=True)  # an interrupted installation is done again
    if not venv_works():
        say("setup: creating .venv")
        run("creation of .venv", [sys.executable, "-m", "venv", "--clear", str(VENV)])
    # The constraints go through the environment since pip then applies them to
    # the environments in which it builds our own packages as well.
    environment = os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    pip = [str(VENV_PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    say("setup: installing the client and generating the protocol's stubs")
    run("installation of the client", [*pip, "-e", "./sdk"], environment)
    say("setup: installing hub, agent, simulator and development tools")
    run("installation of the programs", [*pip, "-e", ".[dev]"], environment)


def venv_works() -> bool:
    """False for none, for one left behind by a move of the folder, and for one without pip."""
    if not VENV_PYTHON.exists():
        return False
    check = subprocess.run(
        [str(VENV_PYTHON), "-c", "import pip, sys; print(sys.version); print(sys.prefix)"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    scripts_fit = (VENV / "bin" / "pip").exists() and str(VENV) in (
        (VENV / "bin" / "pip").read_text(errors="replace").splitlines()[0]
    )
    return check.returncode == 0 and check.stdout == f"{sys.version}\n{VENV}\n" and scripts_fit


if __name__ == "__main__":
    raise SystemExit(main())
