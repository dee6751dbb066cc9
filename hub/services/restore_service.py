"""RestoreService."""

from collections.abc import Iterator

import grpc

from hub.jobs.parts import Parts
from hub.jobs.restore_disk import restore_disk
from hub.services.stream_slots import StreamSlots
from sendense.v1 import restore_pb2 as pb
from sendense.v1.restore_pb2_grpc import RestoreServiceServicer
from shared.grpc_errors import status_from


class RestoreService(RestoreServiceServicer):
    def __init__(self, parts: Parts, slots: StreamSlots) -> None:
        self._parts = parts
        self._slots = slots

    def RestoreDisk(
        self, request: pb.RestoreDiskRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.RestoreDiskResponse]:
        with status_from(context):
            self._slots.take("restore", context)
            yield from restore_disk(self._parts, request.job_id, request.disk_index, context.cancel)
