"""QEMU's programs: found, run with a deadline, and given images by description, not by name."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hub.legacy.errors import ImageUnfit, QemuMissing

# Linux takes no longer argument.
_ARGUMENT_BYTES: Final = 128 * 1024 - 1
_MESSAGE_CHARS: Final = 300
# Messages in one language, without what a site's shell sets for QEMU.
ENVIRONMENT: Final = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


def program(name: str) -> str:
    """Its path. Raises QemuMissing."""
    found = shutil.which(name)
    if found is None:
        raise QemuMissing(name)
    return found


def image_name(layers: Sequence[Path]) -> str:
    """How QEMU is told of a chain, newest first: these files in this order and no others.

    A plain name would have QEMU follow the names that the files' headers have at
    that moment, whatever they say: another file, or an address in the network.
    Raises ImageUnfit when a name cannot be said.
    """
    node: dict[str, Any] | None = None
    for layer in reversed(layers):
        file = {"driver": "file", "filename": str(layer)}
        node = {"driver": "qcow2", "file": file, "backing": node}
    try:
        name = "json:" + json.dumps(node, ensure_ascii=False)
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise ImageUnfit("its name is not valid Unicode") from error
    if length > _ARGUMENT_BYTES:
        raise ImageUnfit(f"its chain of {len(layers)} layers is too long for QEMU's command line")
    return name


def qemu_img(*arguments: str, timeout_s: float, fine: Sequence[int] = (0,)) -> dict[str, Any]:
    """The JSON document that `qemu-img <arguments>` prints.

    `fine` are the exit codes with a document. Raises ImageUnfit with the
    program's own words otherwise, QemuMissing.
    """
    command = [program("qemu-img"), *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env=ENVIRONMENT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ImageUnfit(f"qemu-img {arguments[0]} took more than {timeout_s:.0f} s") from error
    except OSError as error:
        raise ImageUnfit(f"qemu-img cannot be run: {error.strerror}") from error
    if done.returncode not in fine:
        raise ImageUnfit(
            f"qemu-img {arguments[0]}: {said(done.stderr) or f'exit code {done.returncode}'}"
        )
    try:
        document = json.loads(done.stdout)
    except ValueError as error:
        raise ImageUnfit(f"qemu-img {arguments[0]} printed no JSON") from error
    if not isinstance(document, dict):
        raise ImageUnfit(f"qemu-img {arguments[0]} printed no JSON object")
    return document


def said(stderr: bytes) -> str:
    """What a program of QEMU told, on one line, without its name and the image's description."""
    text = " ".join(stderr.decode(errors="replace").split())
    text = text.removeprefix("qemu-img: ").removeprefix("qemu-nbd: ")
    start, end = text.find("'json:{"), text.rfind("}': ")
    if 0 <= start < end:
        text = text[end + 4 :]
    return text[:_MESSAGE_CHARS]
