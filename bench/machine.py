"""Facts of the machine that a result depends on; nothing that names it or its folders."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from tools.paths import system_program


def hardware_facts() -> dict[str, str | int]:
    """Processor, memory, and the kernel and Python on it."""
    return {
        "processor": _first_value("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int(_first_value("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def machine_facts() -> dict[str, str | int]:
    """The same, and the versions that matter to backup and restore."""
    return hardware_facts() | {
        "grpcio": version("grpcio"),
        "zstandard": version("zstandard"),
        "qemu_img": _qemu_version(),
    }


def _first_value(file: str, key: str) -> str:
    for line in Path(file).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "0"


def _qemu_version() -> str:
    done = subprocess.run(
        [system_program("qemu-img"), "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout.splitlines()[0].removeprefix("qemu-img version ")
