"""The rows of an upload, each change a transaction that is tried for a while."""

from typing import Final

from hub.catalog.models import MAX_TEXT_CHARS, BackupDisk
from hub.catalog.queries import find_disk
from hub.catalog.upload_disk import (
    SamplingFacts,
    SealedFacts,
    begin_upload,
    break_disk,
    require_unchanged,
    resume_upload,
    seal_disk,
)
from hub.errors import ProtocolViolation
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.parts import Parts
from hub.jobs.read_methods import READ_METHOD
from hub.jobs.states import ReadMethod
from hub.repository import LayerTotals, SealedLayer
from sendense.clusters import CLUSTER_BYTES
from sendense.v1 import upload_pb2 as pb
from shared.errors import SendenseError

# Unspecified is None: as planned.
_METHODS: Final = {int(number): method for method, number in READ_METHOD.items()}


def planned_disk(parts: Parts, job_id: str, disk_index: int) -> BackupDisk:
    """The disk before its upload, with its job and context. Raises JobNotFound, DiskNotFound."""
    with parts.catalog.read() as session:
        disk = find_disk(session, job_id, disk_index)
        _ = disk.job.context.repository  # loaded while there is a session
        return disk


def begin(parts: Parts, opening: pb.UploadOpen, *, bytes_planned: int) -> BackupDisk:
    """Take the disk; one that is sealed is returned as it is.

    Raises what `begin_upload` raises.
    """
    method = _method(opening)
    sampling = _sampling(opening)

    @retry_catalog
    def record() -> BackupDisk:
        with parts.catalog.write() as session:
            return begin_upload(
                session,
                opening.job_id,
                opening.disk_index,
                bytes_planned=bytes_planned,
                full_instead=opening.full_instead,
                full_reason=opening.full_reason[:MAX_TEXT_CHARS],
                method=method,
                reason=opening.read_reason[:MAX_TEXT_CHARS],
                sampling=sampling,
                now=parts.now(),
            )

    return record()


@retry_catalog
def record_resume(parts: Parts, disk: BackupDisk, bytes_resent: int) -> None:
    """The disk's upload goes on; `bytes_resent` in all. Raises JobEnded, CatalogUnavailable."""
    with parts.catalog.write() as session:
        resume_upload(session, disk, bytes_resent)


@retry_catalog
def record_seal(parts: Parts, disk_id: int, facts: SealedFacts) -> None:
    """The disk's layer is on stable storage. Raises JobEnded, CatalogUnavailable."""
    with parts.catalog.write() as session:
        seal_disk(session, disk_id, facts, parts.now())


@retry_catalog
def record_recovered_seal(
    parts: Parts, disk: BackupDisk, sealed: SealedLayer, totals: LayerTotals
) -> None:
    """The disk's layer was found sealed, which its row does not say yet; repeating changes nothing.

    `disk` is the row that the layer was looked for with, its base and change id
    included. Raises JobEnded, ProtocolViolation (the row tells of another disk by now),
    CatalogUnavailable.
    """
    unchanged = 0
    if disk.base_disk_id is not None:
        sent = (totals.clusters + totals.zero_clusters) * CLUSTER_BYTES
        unchanged = max(0, disk.bytes_planned - sent)
    facts = SealedFacts(
        qcow2_path=sealed.path,
        root_digest=sealed.root_digest.hex(),
        bytes_planned=disk.bytes_planned,
        bytes_read=disk.bytes_planned,
        bytes_transferred=totals.payload_bytes,
        bytes_stored=sealed.bytes_stored,
        bytes_unchanged=unchanged,
        clusters_missed=0,  # what the row knows of the sample stays
    )
    with parts.catalog.write() as session:
        require_unchanged(session, disk)
        seal_disk(session, disk.id, facts, parts.now())


@retry_catalog
def record_break(parts: Parts, disk_id: int, error: SendenseError) -> None:
    """The disk's upload failed. Raises CatalogUnavailable."""
    with parts.catalog.write() as session:
        break_disk(session, disk_id, error)


def _method(opening: pb.UploadOpen) -> ReadMethod | None:
    try:
        return _METHODS[opening.read_method]
    except KeyError:
        raise ProtocolViolation(
            f"disk {opening.disk_index} of {opening.job_id}: "
            f"{opening.read_method} is no way to read it that is known here"
        ) from None


def _sampling(opening: pb.UploadOpen) -> SamplingFacts | None:
    if not opening.HasField("sampling"):
        return None
    found = opening.sampling
    return SamplingFacts(
        clusters_sampled=found.clusters_sampled,
        clusters_drawn_from=found.clusters_drawn_from,
        undetected_clusters_bound=found.undetected_clusters_bound,
        clusters_missed=found.clusters_missed,
    )
