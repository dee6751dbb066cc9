"""Layers as stock QEMU sees them."""

import json
import subprocess
from pathlib import Path
from typing import Any


def image_info(layer: Path) -> dict[str, Any]:
    """`qemu-img info` of the layer alone."""
    found: dict[str, Any] = _qemu_img("info", layer)
    return found


def backing_file(layer: Path) -> Path | None:
    """The layer that this one builds on; None for a full."""
    named = image_info(layer).get("full-backing-filename")
    return Path(named).resolve() if named else None


def own_clusters(layer: Path) -> list[dict[str, Any]]:
    """What `qemu-img map` says of the ranges that the layer holds itself, not its bases."""
    return [part for part in _qemu_img("map", layer) if part["depth"] == 0 and part["present"]]


def _qemu_img(command: str, layer: Path) -> Any:
    done = subprocess.run(
        ["qemu-img", command, "--output=json", "-f", "qcow2", str(layer)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
