"""Proof by restore: through the API, and once more with stock QEMU alone."""

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sendense import Client
from simulator.disks.disk import SimulatedDisk
from tests.end_to_end.processes import Hub

CHUNK = 4 << 20


@dataclass(frozen=True)
class Witness:
    """What a disk held at a moment: its size and the digest of every byte."""

    length: int
    sha256: str

    @classmethod
    def of_disk(cls, disk: SimulatedDisk) -> "Witness":
        digest = hashlib.sha256()
        for start in range(0, disk.capacity_bytes, CHUNK):
            digest.update(disk.read(start, min(CHUNK, disk.capacity_bytes - start)))
        return cls(disk.capacity_bytes, digest.hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> "Witness":
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


class Restorer:
    """Restores disks of jobs and compares them with witnesses."""

    def __init__(self, folder: Path, client: Client, hub: Hub) -> None:
        self._folder = folder
        self._folder.mkdir()
        self._client = client
        self._hub = hub

    def restore(self, job_id: str, disk_index: int) -> Witness:
        """The disk as the API restores it."""
        target = self._folder / f"{job_id}-{disk_index}.raw"
        self._client.restore_disk(job_id, disk_index, target)
        witness = Witness.of_file(target)
        target.unlink()
        return witness

    def restore_with_qemu(self, job_id: str, disk_index: int) -> Witness:
        """The disk as stock QEMU reads the layer and its chain, Sendense not involved."""
        target = self._folder / f"{job_id}-{disk_index}-qemu.raw"
        layer = self.layer(job_id, disk_index)
        _qemu_img("convert", "-O", "raw", layer, target)
        witness = Witness.of_file(target)
        target.unlink()
        return witness

    def layer(self, job_id: str, disk_index: int) -> Path:
        return self._hub.repository / self._client.get_disk(job_id, disk_index).disk.qcow2_path

    def assert_clean(self, job_id: str, disk_index: int) -> None:
        """`qemu-img check` finds nothing, not even a leak."""
        report = json.loads(
            _qemu_img("check", "--output=json", "-f", "qcow2", self.layer(job_id, disk_index))
        )
        assert report["check-errors"] == 0
        assert not {"corruptions", "leaks"} & report.keys(), report

    def backing_chain(self, job_id: str, disk_index: int) -> list[Path]:
        """The layers that stock QEMU finds, newest first, resolved."""
        report = json.loads(
            _qemu_img(
                *("info", "--backing-chain", "--output=json", "-f", "qcow2"),
                self.layer(job_id, disk_index),
            )
        )
        return [Path(image["filename"]).resolve() for image in report]


def _qemu_img(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["qemu-img", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"qemu-img {arguments}: {done.stderr}"
    return done.stdout
