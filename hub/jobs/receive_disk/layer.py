"""The layer that an upload writes: whose it is, its clusters, what its row will say."""

from hub.catalog.models import BackupDisk, VmBackupContext
from hub.catalog.upload_disk import SealedFacts
from hub.errors import FrameDamaged, FrameRefused
from hub.jobs.board import DiskProgress
from hub.jobs.repositories import layer_base, layer_identity, open_repository
from hub.repository import LayerWriter, ResumedLayer, SealedLayer
from sendense.codec import EncodedClusters, FrameCorrupt, FrameInvalid, from_frame
from sendense.v1 import clusters_pb2
from sendense.v1 import upload_pb2 as pb


def resume_layer(context: VmBackupContext, disk: BackupDisk, plan_digest: bytes) -> ResumedLayer:
    """Go on with the disk's layer, or begin it. Raises what `Repository.resume_layer` raises."""
    return open_repository(context.repository).resume_layer(
        layer_identity(context, disk),
        layer_base(disk.base) if disk.base is not None else None,
        plan_digest=plan_digest,
        change_id=disk.disk_change_id,
    )


def append(
    writer: LayerWriter, disk: BackupDisk, frame: clusters_pb2.ClusterFrame
) -> EncodedClusters:
    """Check a frame and write it, in a constant number of operations, whatever it holds.

    Raises FrameDamaged, FrameRefused, RepositoryFull, LayerWriteFailed.
    """
    try:
        batch = from_frame(
            frame, cluster_limit=writer.capacity_clusters, after_cluster=writer.last_cluster
        )
    except FrameCorrupt as error:
        raise FrameDamaged(disk.backup_job_id, disk.disk_index, str(error)) from error
    except FrameInvalid as error:
        raise FrameRefused(disk.backup_job_id, disk.disk_index, str(error)) from error
    writer.append(batch, frame.checksum)
    return batch


def sealed_facts(layer: SealedLayer, counted: DiskProgress, finish: pb.UploadFinish) -> SealedFacts:
    """What the disk's row will say of its layer."""
    return SealedFacts(
        qcow2_path=layer.path,
        root_digest=layer.root_digest.hex(),
        bytes_planned=counted.bytes_planned,
        bytes_read=counted.bytes_read,
        bytes_transferred=counted.bytes_transferred,
        bytes_stored=layer.bytes_stored,
        bytes_unchanged=finish.bytes_unchanged,
        clusters_missed=finish.clusters_missed,
    )
