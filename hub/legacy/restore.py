"""Restore of an imported disk: its chain of QCOW2 files read in place, encoded as it is sent."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog

from hub.catalog.models import BackupDisk, VmBackupContext
from hub.errors import ChainDamaged
from hub.jobs.parts import Parts
from hub.jobs.repositories import open_repository
from hub.legacy.errors import ImageUnfit, NbdFailed
from hub.legacy.images import read_facts
from hub.legacy.nbd_client import NbdClient
from hub.legacy.nbd_server import served_chain
from sendense.clusters import CLUSTER_BYTES, DIGEST_BYTES
from sendense.codec import ClusterEncoder, EncodedClusters, merge
from sendense.digests import DiskDigests
from sendense.v1 import restore_pb2 as pb

# One read and one call of the encoder; it divides a region.
EXTENT_BYTES: Final = 1 << 20
FRAME_BYTES: Final = 1 << 20
_log = structlog.get_logger(__name__)


def restore_imported(
    parts: Parts, rows: Sequence[BackupDisk], context: VmBackupContext
) -> Iterator[pb.RestoreDiskResponse]:
    """Header, frames, trailer of a chain of imported rows, newest first.

    The files have no digests of ours: the trailer's root digest is of what was
    read, so that it arrives as it was read. Raises RepositoryUnusable,
    QemuMissing, ChainDamaged; after any of them what was sent is worth nothing.
    """
    disk = rows[0]
    layers = unchanged_layers(open_repository(context.repository).path, rows)
    _log.info(
        "restore_started",
        job_id=disk.backup_job_id,
        disk=disk.disk_index,
        layers=len(rows),
        imported=True,
    )
    yield pb.RestoreDiskResponse(
        header=pb.RestoreHeader(
            job_id=disk.backup_job_id,
            disk_index=disk.disk_index,
            capacity_bytes=disk.capacity_bytes,
            vm_name=context.vm_name,
            disk_label=disk.label,
            imported=True,
        )
    )
    digests = DiskDigests(disk.capacity_bytes)
    clusters = payload_bytes = 0
    try:
        with served_chain(layers) as client:
            if client.size_bytes != disk.capacity_bytes:
                raise NbdFailed(f"the disk has {client.size_bytes} bytes")
            for batch in _batches(client, disk.capacity_bytes):
                for at, number in enumerate(batch.numbers.tolist()):
                    start = at * DIGEST_BYTES
                    digests.add(number, batch.digests[start : start + DIGEST_BYTES])
                yield pb.RestoreDiskResponse(frame=batch.to_frame())
                clusters += len(batch)
                payload_bytes += batch.payload_bytes
                parts.metrics.bytes_restored.inc(batch.payload_bytes)
    except (NbdFailed, ImageUnfit) as error:
        raise ChainDamaged(disk.qcow2_path or "", str(error)) from error
    yield pb.RestoreDiskResponse(
        trailer=pb.RestoreTrailer(
            cluster_count=clusters, payload_bytes=payload_bytes, root_digest=digests.finish()[1]
        )
    )


def unchanged_layers(folder: Path, rows: Sequence[BackupDisk]) -> list[Path]:
    """The rows' files, when they still are what was imported. Raises ChainDamaged, QemuMissing.

    Nobody seals another system's files: what can be compared is the length, the
    size of the disk and what each layer names as the one below it.
    """
    try:
        root = folder.resolve()
    except (OSError, RuntimeError) as error:
        raise ChainDamaged(str(folder), str(error)) from error
    files = [root / (row.qcow2_path or "") for row in rows]
    for row, file in zip(rows, files, strict=True):
        _require_in_place(row, file)
    for at, (row, file) in enumerate(zip(rows, files, strict=True)):
        below = files[at + 1] if at + 1 < len(files) else None
        path = row.qcow2_path or ""
        try:
            facts = read_facts(file)
        except ImageUnfit as error:
            raise ChainDamaged(path, str(error)) from error
        if facts.file_bytes != row.bytes_stored:
            raise ChainDamaged(
                path, f"has {facts.file_bytes} bytes; {row.bytes_stored} were imported"
            )
        if facts.capacity_bytes != row.capacity_bytes:
            raise ChainDamaged(
                path,
                f"is a disk of {facts.capacity_bytes} bytes; {row.capacity_bytes} were imported",
            )
        if facts.backing != below:
            raise ChainDamaged(
                path,
                f"builds on {facts.backing or 'nothing'}; it was imported on {below or 'nothing'}",
            )
    return files


def _require_in_place(row: BackupDisk, file: Path) -> None:
    """Raises ChainDamaged when the path, or something else than an import, leads elsewhere."""
    path = row.qcow2_path or ""
    if row.legacy_id is None:
        raise ChainDamaged(path, "an imported layer builds on it, but it was not imported")
    try:
        in_place = bool(path) and file.resolve() == file
    except (OSError, RuntimeError) as error:
        raise ChainDamaged(path, str(error)) from error
    if not in_place:
        raise ChainDamaged(path, "is not the file that was imported: there is a link in its path")


def _batches(client: NbdClient, capacity_bytes: int) -> Iterator[EncodedClusters]:
    """The disk's clusters with data, ascending, about 1 MiB and one region each."""
    encoder = ClusterEncoder()
    waiting: list[EncodedClusters] = []
    waiting_bytes = 0
    for start, length in _extents(client, capacity_bytes):
        data = client.read(start, length)
        batch = encoder.encode(start // CLUSTER_BYTES, data, keep_zeros=False)
        if not len(batch):
            continue
        if waiting and batch.region != waiting[0].region:
            yield merge(waiting)
            waiting, waiting_bytes = [], 0
        waiting.append(batch)
        waiting_bytes += batch.payload_bytes
        if waiting_bytes >= FRAME_BYTES:
            yield merge(waiting)
            waiting, waiting_bytes = [], 0
    if waiting:
        yield merge(waiting)


def _extents(client: NbdClient, capacity_bytes: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of whole clusters, cut at the disk's end, that may have data; ascending."""
    done = 0
    for offset, length, is_zero in client.areas():
        if is_zero:
            continue
        start = max(done, offset // CLUSTER_BYTES * CLUSTER_BYTES)
        end = min(-(-(offset + length) // CLUSTER_BYTES) * CLUSTER_BYTES, capacity_bytes)
        while start < end:
            stop = min(end, (start // EXTENT_BYTES + 1) * EXTENT_BYTES)
            yield start, stop - start
            start = stop
        done = max(done, end)
