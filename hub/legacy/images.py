"""What a QCOW2 file is: asked of qemu-img, held against what a layer may be."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hub.legacy.errors import ImageUnfit
from hub.legacy.qemu import image_name, qemu_img
from sendense.qcow2_format import CapacityInvalid, check_capacity

INFO_TIMEOUT_S: Final = 60.0
# Reads all tables of the image: minutes for terabytes on a slow share.
CHECK_TIMEOUT_S: Final = 3600.0
_LEAKS: Final = 3
_CORRUPT: Final = 2
# What QEMU takes for an address, not a path: a colon before the first slash.
_ADDRESS: Final = re.compile(r"[^/]*:")


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A QCOW2 file as its header describes it; `backing` is absolute, with links resolved."""

    capacity_bytes: int
    backing: Path | None
    file_bytes: int


def read_facts(path: Path) -> ImageFacts:
    """`qemu-img info` of the file alone, its links resolved before. Raises ImageUnfit, QemuMissing."""
    file_bytes = _regular_file(path)
    document = qemu_img("info", "--output=json", image_name([path]), timeout_s=INFO_TIMEOUT_S)
    if document.get("format") != "qcow2":
        raise ImageUnfit(f"has the format {document.get('format')!r}, not qcow2")
    capacity = document.get("virtual-size")
    if not isinstance(capacity, int):
        raise ImageUnfit("qemu-img info tells no virtual size")
    try:
        check_capacity(capacity)
    except CapacityInvalid as error:
        raise ImageUnfit(f"its virtual size of {error}") from error
    if document.get("encrypted"):
        raise ImageUnfit("is encrypted")
    _check_data(document)
    return ImageFacts(capacity, _backing(path, document), file_bytes)


def check_structure(path: Path) -> str:
    """`qemu-img check` of the file alone; a note on what is harmless, or "". Raises ImageUnfit."""
    document = qemu_img(
        "check",
        "--output=json",
        image_name([path]),
        timeout_s=CHECK_TIMEOUT_S,
        fine=(0, _CORRUPT, _LEAKS),
    )
    corruptions, errors = _count(document, "corruptions"), _count(document, "check-errors")
    if corruptions or errors:
        raise ImageUnfit(
            f"is damaged: qemu-img check finds {corruptions} corruptions and {errors} errors"
        )
    leaks = _count(document, "leaks")
    return f"{leaks} clusters of the file are in no use, which is harmless" if leaks else ""


def _count(document: dict[str, Any], key: str) -> int:
    value = document.get(key, 0)
    return value if isinstance(value, int) else 1


def _regular_file(path: Path) -> int:
    """Its bytes. A pipe would keep qemu-img waiting, a device is no file of a repository."""
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise ImageUnfit("is not there") from error
    except OSError as error:
        raise ImageUnfit(error.strerror or str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise ImageUnfit("is no regular file")
    if not os.access(path, os.R_OK):
        raise ImageUnfit("may not be read by this user")
    return found.st_size


def _check_data(document: dict[str, Any]) -> None:
    specific = document.get("format-specific")
    data = specific.get("data") if isinstance(specific, dict) else None
    if not isinstance(data, dict):
        return
    if data.get("data-file") or data.get("data-file-raw"):
        raise ImageUnfit("keeps its data in another file")
    if data.get("corrupt"):
        raise ImageUnfit("is marked as corrupt by QEMU")


def _backing(path: Path, document: dict[str, Any]) -> Path | None:
    name = document.get("backing-filename")
    if name is None:
        return None
    if not isinstance(name, str) or _ADDRESS.match(name):
        raise ImageUnfit(f"its backing file {name!r} is no path")
    kind = document.get("backing-filename-format", "qcow2")
    if kind != "qcow2":
        raise ImageUnfit(f"its backing file has the format {kind!r}, not qcow2")
    try:
        return (path.parent / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
        raise ImageUnfit(f"its backing file {name!r} cannot be resolved: {error}") from error
