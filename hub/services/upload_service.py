"""UploadService."""

from collections.abc import Iterator

import grpc

from hub.jobs.base_digests import base_digests
from hub.jobs.parts import Parts
from hub.jobs.receive_disk import receive_disk
from hub.services.stream_slots import StreamSlots
from sendense.v1 import upload_pb2 as pb
from sendense.v1.upload_pb2_grpc import UploadServiceServicer
from shared.grpc_errors import status_from


class UploadService(UploadServiceServicer):
    def __init__(self, parts: Parts, slots: StreamSlots) -> None:
        self._parts = parts
        self._slots = slots

    def UploadDisk(
        self, request_iterator: Iterator[pb.UploadDiskRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.UploadDiskResponse]:
        with status_from(context):
            self._slots.take("upload", context)
            yield from receive_disk(self._parts, request_iterator, context)

    def BaseDigests(
        self, request_iterator: Iterator[pb.BaseDigestsRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.BaseDigestsResponse]:
        with status_from(context):
            self._slots.take("base digests", context)
            yield from base_digests(self._parts, request_iterator, context)
