"""The demo's proof: restored disks, layers and chains, judged by comparison and by qemu-img."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sendense import Backup, BackupDisk, Client
from tools.paths import system_program
from tools.sparse import identical

QEMU_TIMEOUT_S: Final = 300


@dataclass
class Findings:
    """What the checks found; every flag begins as "nothing checked yet" and a failure stays."""

    disks_compared: int = 0
    layers_checked: int = 0
    chains_checked: int = 0
    problems: list[str] = field(default_factory=list)
    differing: int = 0
    dirty_layers: int = 0
    broken_chains: int = 0

    def restored(self, job: Backup, disk: BackupDisk, restored: Path, recorded: Path) -> bool:
        """Compare a restored disk with what the simulated disk held at the snapshot."""
        self.disks_compared += 1
        same = identical(restored, recorded)
        if not same:
            self.differing += 1
            self.problems.append(f"{job.job_id} disk {disk.disk_index} differs from the snapshot")
        return same

    def layer(self, path: Path) -> bool:
        """`qemu-img check`: no error, no corruption, not even a leaked cluster."""
        self.layers_checked += 1
        status, output = _qemu_img("check", "--output=json", "-f", "qcow2", str(path))
        report = json.loads(output) if output else {}
        clean = status == 0 and report.get("check-errors") == 0
        clean = clean and not report.get("corruptions") and not report.get("leaks")
        if not clean:
            self.dirty_layers += 1
            self.problems.append(f"qemu-img check complains about {path}")
        return clean

    def chain(self, layers: Sequence[Path]) -> bool:
        """`qemu-img info --backing-chain` finds just these layers, newest first."""
        self.chains_checked += 1
        status, output = _qemu_img(
            "info", "--backing-chain", "--output=json", "-f", "qcow2", str(layers[0])
        )
        images: list[dict[str, Any]] = json.loads(output) if status == 0 else []
        found = [Path(image["filename"]).resolve() for image in images]
        linear = found == [layer.resolve() for layer in layers]
        if not linear:
            self.broken_chains += 1
            self.problems.append(f"the chain of {layers[0]} is {[str(p) for p in found]}")
        return linear

    def qemu_agrees(self, restored: Path, layer: Path) -> bool:
        """`qemu-img compare` of a restored disk with the layer it came from."""
        status, _ = _qemu_img("compare", "-f", "raw", "-F", "qcow2", str(restored), str(layer))
        if status != 0:
            self.differing += 1
            self.problems.append(f"qemu-img compare finds {restored.name} and {layer} different")
        return status == 0

    @property
    def identical(self) -> bool:
        return self.disks_compared > 0 and self.differing == 0

    @property
    def layers_clean(self) -> bool:
        return self.layers_checked > 0 and self.dirty_layers == 0

    @property
    def chain_linear(self) -> bool:
        return self.chains_checked > 0 and self.broken_chains == 0


def layers_of_chain(client: Client, repository: Path, job_id: str, disk_index: int) -> list[Path]:
    """A disk's layers as the catalog has them, newest first, down to the full."""
    chain = client.get_disk(job_id, disk_index).chain
    return [repository / disk.qcow2_path for disk in chain]


def _qemu_img(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [system_program("qemu-img"), *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=QEMU_TIMEOUT_S,
    )
    return done.returncode, done.stdout
