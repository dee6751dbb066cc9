"""Where things are in a checkout."""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BIN: Final = Path(sys.executable).parent

_SYSTEM = ":/usr/local/sbin:/usr/sbin:/sbin"


def system_program(name: str) -> str:
    """Full path of a system program, also one that a user's PATH leaves out.

    Raises FileNotFoundError naming the program and the way to get it.
    """
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + _SYSTEM)
    if found is None:
        raise FileNotFoundError(f"the program {name} is missing; `make setup` as root installs it")
    return found
