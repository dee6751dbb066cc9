"""Disks drawn as text, backed up into a real repository and judged by qemu-img.

A drawing has one character a cluster: an upper-case letter is data that
compresses, a lower-case letter data that does not, "0" zeros, "." nothing
written (in a full) or nothing changed (in an increment).
"""

import json
import random
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.repository import LayerBase, LayerIdentity, LayerWriter, Repository, SealedLayer
from sendense.clusters import CLUSTER_BYTES, REGION_CLUSTERS, cluster_count
from sendense.codec import ClusterDecoder, ClusterEncoder, EncodedClusters, merge
from sendense.digests import DiskDigests

# Drawings begin at these clusters: around the border of two regions, too.
Drawing = Mapping[int, str]


def content(letter: str, salt: int = 0) -> bytes:
    """The cluster that a letter stands for; `salt` makes another one of the same kind."""
    if letter == "0":
        return bytes(CLUSTER_BYTES)
    noise = random.Random(f"{letter}{salt}")
    if letter.islower():
        return noise.randbytes(CLUSTER_BYTES)
    return noise.randbytes(200 + 977 * (ord(letter) - ord("A"))).ljust(CLUSTER_BYTES, b"\x55")


@dataclass
class GuestDisk:
    """What the guest sees: clusters by number; all others are zeros."""

    capacity_bytes: int
    clusters: dict[int, bytes] = field(default_factory=dict)
    generation: int = 0

    def write(self, drawing: Drawing) -> list[int]:
        """Apply a drawing; clusters beyond the disk are left out. Returns the clusters written."""
        self.generation += 1
        written = []
        for start, text in drawing.items():
            for number, letter in enumerate(text, start=start):
                if letter != "." and number < cluster_count(self.capacity_bytes):
                    self.clusters[number] = self._clipped(number, content(letter, self.generation))
                    written.append(number)
        return sorted(set(written))

    def cluster(self, number: int) -> bytes:
        """65536 bytes, padded behind the disk's end."""
        return self.clusters.get(number, bytes(CLUSTER_BYTES))

    def raw_file(self, path: Path) -> Path:
        """The disk as a sparse file."""
        with path.open("wb") as file:
            file.truncate(self.capacity_bytes)
            for number, cluster in self.clusters.items():
                file.seek(number * CLUSTER_BYTES)
                file.write(cluster[: self.capacity_bytes - number * CLUSTER_BYTES])
        return path

    def root_digest(self) -> bytes:
        digests = DiskDigests(self.capacity_bytes)
        for batch in encoded(self, sorted(self.clusters), keep_zeros=True):
            for at, number in enumerate(batch.numbers.tolist()):
                digests.add(number, batch.digests[at * 16 : at * 16 + 16])
        return digests.finish()[1]

    def non_zero(self) -> dict[int, bytes]:
        return {number: data for number, data in self.clusters.items() if any(data)}

    def _clipped(self, number: int, data: bytes) -> bytes:
        left = self.capacity_bytes - number * CLUSTER_BYTES
        return data[:left].ljust(CLUSTER_BYTES, b"\0")


def encoded(
    disk: GuestDisk, numbers: Iterable[int], *, keep_zeros: bool, frame_clusters: int = 3
) -> Iterator[EncodedClusters]:
    """Frames of at most so many clusters, each within one region."""
    encoder = ClusterEncoder()
    waiting: list[EncodedClusters] = []
    for number in numbers:
        batch = encoder.encode(number, disk.cluster(number), keep_zeros=keep_zeros)
        if not len(batch):
            continue
        if waiting and (waiting[0].region != batch.region or len(waiting) == frame_clusters):
            yield merge(waiting)
            waiting = []
        waiting.append(batch)
    if waiting:
        yield merge(waiting)


def identity(job_id: str, capacity_bytes: int, **other: Any) -> LayerIdentity:
    facts: dict[str, Any] = {
        "context_id": "ctx-backup-pgtest1-1",
        "disk_index": 0,
        "vm_name": "pgtest1",
        "vmware_disk_key": 2000,
        "disk_uuid": "6000C29e-0000",
        "disk_label": "Hard disk 1",
    }
    return LayerIdentity(job_id=job_id, capacity_bytes=capacity_bytes, **{**facts, **other})


@dataclass
class BackedUpDisk:
    """A guest disk and the chain of its backups in a repository."""

    repository: Repository
    disk: GuestDisk
    layers: list[SealedLayer] = field(default_factory=list)
    base: LayerBase | None = None

    @classmethod
    def drawn(cls, repository: Repository, text: str, *, beyond: int = 0) -> "BackedUpDisk":
        """A disk of as many clusters as the text, `beyond` bytes more, backed up once."""
        made = cls(repository, GuestDisk(len(text) * CLUSTER_BYTES + beyond))
        made.backup({0: text})
        return made

    @property
    def paths(self) -> list[str]:
        """The chain, newest first."""
        return [layer.path for layer in reversed(self.layers)]

    def writer(self, job_id: str | None = None) -> LayerWriter:
        job_id = job_id or f"job-{len(self.layers)}"
        return self.repository.new_layer(identity(job_id, self.disk.capacity_bytes), self.base)

    def backup(self, drawing: Drawing, *, frame_clusters: int = 3) -> SealedLayer:
        """The guest writes, then one job runs: a full at first, increments after it."""
        written = self.disk.write(drawing)
        job_id = f"job-{len(self.layers)}"
        writer = self.writer(job_id)
        for batch in encoded(
            self.disk,
            written,
            keep_zeros=self.base is not None,
            frame_clusters=frame_clusters,
        ):
            writer.append(batch)
        return self.sealed_as(writer.seal(f"change/{job_id}"), job_id)

    def sealed_as(self, sealed: SealedLayer, job_id: str) -> SealedLayer:
        """The job's layer is the newest of the chain."""
        self.base = LayerBase(sealed.path, job_id, 0, f"change/{job_id}")
        self.layers.append(sealed)
        return sealed

    def restored(self) -> dict[int, bytes]:
        """The clusters with data as a restore yields them, every promise of Chain checked."""
        clusters: dict[int, bytes] = {}
        digests = DiskDigests(self.disk.capacity_bytes)
        last_cluster, payload_bytes = -1, 0
        with self.repository.open_chain(self.paths) as chain:
            for batch in chain.batches():
                assert last_cluster < batch.first_cluster
                assert batch.last_cluster // REGION_CLUSTERS == batch.region
                last_cluster = batch.last_cluster
                payload_bytes += batch.payload_bytes
                clusters.update(ClusterDecoder().decode(batch))
                for at, number in enumerate(batch.numbers.tolist()):
                    digests.add(number, batch.digests[at * 16 : at * 16 + 16])
            assert chain.capacity_bytes == self.disk.capacity_bytes
            assert chain.cluster_count == len(clusters)
            assert chain.payload_bytes == payload_bytes
            assert chain.root_digest == digests.finish()[1]
        return clusters


def qemu_img(*arguments: str | Path) -> str:
    """Run qemu-img. Returns what it prints; fails the test when it fails."""
    done = subprocess.run(
        ["qemu-img", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"qemu-img {arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def qemu_map(image: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(qemu_img("map", "--output=json", image))
    return found


def assert_clean(image: Path) -> None:
    """qemu-img finds neither errors nor leaked clusters."""
    report = json.loads(qemu_img("check", "--output=json", image))
    assert report["check-errors"] == 0
    assert not {"corruptions", "leaks"} & report.keys(), report


def assert_same_as_guest(image: Path, disk: GuestDisk, scratch: Path) -> None:
    """The image holds what the guest saw, in size and in every byte."""
    raw = disk.raw_file(scratch / "guest.raw")
    # Images that differ in size alone are identical for qemu-img; it only says so.
    assert qemu_img("compare", "-f", "qcow2", "-F", "raw", image, raw) == "Images are identical.\n"
