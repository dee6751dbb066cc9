"""Restore: a disk of a restore point, read through its chain."""

from collections.abc import Callable, Iterator, Sequence

import structlog

from hub.catalog.models import BackupDisk, VmBackupContext
from hub.catalog.queries import find_job, restorable_chain
from hub.errors import ChainDamaged
from hub.jobs.parts import Parts
from hub.jobs.repositories import open_repository
from hub.legacy.restore import restore_imported
from sendense.v1 import restore_pb2 as pb

_log = structlog.get_logger(__name__)


def restore_disk(
    parts: Parts, job_id: str, disk_index: int, cancel: Callable[[], object] = lambda: None
) -> Iterator[pb.RestoreDiskResponse]:
    """Header, frames, trailer. The job is not deleted meanwhile. `cancel` breaks the RPC off.

    Raises JobNotFound, DiskNotFound, NotARestorePoint, RepositoryUnusable,
    LayerDamaged, ChainDamaged, QemuMissing, RestoreStalled; after any of them what
    was sent is worth nothing.
    """
    with parts.reads.reading(job_id, cancel) as reading:
        with parts.catalog.read() as session:
            rows = restorable_chain(session, job_id, disk_index)
            context = find_job(session, job_id).context
        restore = restore_imported if rows[0].legacy_id is not None else _restore
        for part in restore(parts, rows, context):
            if part.WhichOneof("part") == "trailer":
                # Whoever has it may delete the job at once.
                reading.release()
            with reading.giving():
                yield part


def _restore(
    parts: Parts, rows: Sequence[BackupDisk], context: VmBackupContext
) -> Iterator[pb.RestoreDiskResponse]:
    disk = rows[0]
    job_id, disk_index = disk.backup_job_id, disk.disk_index
    repository = open_repository(context.repository)
    chain = repository.open_chain([row.qcow2_path or "" for row in rows])
    try:
        if chain.root_digest.hex() != disk.root_digest:
            raise ChainDamaged(disk.qcow2_path or "", "its root digest is not the catalog's")
        if chain.capacity_bytes != disk.capacity_bytes:
            raise ChainDamaged(disk.qcow2_path or "", "its capacity is not the catalog's")
        _log.info("restore_started", job_id=job_id, disk=disk_index, layers=len(rows))
        yield pb.RestoreDiskResponse(
            header=pb.RestoreHeader(
                job_id=job_id,
                disk_index=disk_index,
                capacity_bytes=chain.capacity_bytes,
                root_digest=chain.root_digest,
                cluster_count=chain.cluster_count,
                payload_bytes=chain.payload_bytes,
                vm_name=context.vm_name,
                disk_label=disk.label,
            )
        )
        clusters = payload_bytes = 0
        for batch in chain.batches():
            yield pb.RestoreDiskResponse(frame=batch.to_frame())
            clusters += len(batch)
            payload_bytes += batch.payload_bytes
            parts.metrics.bytes_restored.inc(batch.payload_bytes)
        yield pb.RestoreDiskResponse(
            trailer=pb.RestoreTrailer(cluster_count=clusters, payload_bytes=payload_bytes)
        )
    finally:
        chain.close()
