"""Whether a layer's files are where the catalog says."""

import stat
from pathlib import Path

from hub.repository.paths import manifest_path


def files_problem(root: Path, layer: str, *, has_manifest: bool) -> str:
    """What is wrong with the layer's files, or "". Their contents are not looked at."""
    problem = _problem(root / layer)
    if problem:
        return f"its file {problem}"
    if has_manifest:
        problem = _problem(root / manifest_path(layer))
        if problem:
            return f"its manifest {problem}"
    return ""


def _problem(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    if not stat.S_ISREG(mode):
        return "is no regular file"
    return ""
