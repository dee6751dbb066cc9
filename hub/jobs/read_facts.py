"""How a disk is read and how tracking was checked, between messages and the catalog's words."""

from types import MappingProxyType
from typing import Final

from hub.catalog.upload_disk import SamplingFacts
from hub.errors import ProtocolViolation
from hub.jobs.states import ReadMethod
from sendense.v1 import backup_pb2, upload_pb2

READ_METHOD: Final = MappingProxyType(
    {
        None: backup_pb2.READ_METHOD_UNSPECIFIED,
        ReadMethod.ALLOCATED: backup_pb2.READ_METHOD_ALLOCATED,
        ReadMethod.CHANGED: backup_pb2.READ_METHOD_CHANGED,
        ReadMethod.COMPARED: backup_pb2.READ_METHOD_COMPARED,
    }
)


def method_opened(opening: upload_pb2.UploadOpen) -> ReadMethod | None:
    """None means as planned. Raises ProtocolViolation."""
    for method, number in READ_METHOD.items():
        if number == opening.read_method:
            return method
    raise ProtocolViolation(
        f"disk {opening.disk_index} of {opening.job_id}: {opening.read_method} is no read method"
    )


def sampling_opened(opening: upload_pb2.UploadOpen) -> SamplingFacts | None:
    """What the sample found; None when none was taken."""
    if not opening.HasField("sampling"):
        return None
    said = opening.sampling
    return SamplingFacts(
        clusters_sampled=said.clusters_sampled,
        clusters_drawn_from=said.clusters_drawn_from,
        undetected_clusters_bound=said.undetected_clusters_bound,
        clusters_missed=said.clusters_missed,
    )
