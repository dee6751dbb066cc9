"""The layer that an upload writes: whose it is, its clusters, what its row will say."""

from hub.catalog.models import BackupDisk, VmBackupContext
from hub.catalog.upload_disk import SealedFacts
from hub.errors import FrameDamaged, FrameRefused
from hub.jobs.board import DiskProgress
from hub.jobs.repositories import layer_base, open_repository
from hub.repository import LayerIdentity, LayerWriter, SealedLayer
from sendense.codec import EncodedClusters, FrameCorrupt, FrameInvalid, from_frame
from sendense.v1 import clusters_pb2
from sendense.v1 import upload_pb2 as pb


def new_layer(context: VmBackupContext, disk: BackupDisk) -> LayerWriter:
    """Begin the disk's layer. Raises what `Repository.new_layer` raises."""
    identity = LayerIdentity(
        context_id=context.context_id,
        job_id=disk.backup_job_id,
        disk_index=disk.disk_index,
        vm_name=context.vm_name,
        vmware_disk_key=disk.vmware_disk_key,
        disk_uuid=disk.disk_uuid,
        disk_label=disk.label,
        capacity_bytes=disk.capacity_bytes,
    )
    base = layer_base(disk.base) if disk.base is not None else None
    return open_repository(context.repository).new_layer(identity, base)


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
