"""ContextService and DiskService."""

import grpc

from hub.catalog.contexts import find_context
from hub.catalog.lists import list_contexts, list_disks
from hub.catalog.queries import chain_of, find_disk
from hub.jobs.parts import Parts
from hub.services.messages import context_message, disk_message
from sendense.v1 import context_pb2 as pb
from sendense.v1.context_pb2_grpc import ContextServiceServicer, DiskServiceServicer
from shared.grpc_errors import status_from


class ContextService(ContextServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def GetContext(
        self, request: pb.GetContextRequest, context: grpc.ServicerContext
    ) -> pb.GetContextResponse:
        with status_from(context), self._parts.catalog.read() as session:
            return pb.GetContextResponse(
                context=context_message(find_context(session, request.context_id))
            )

    def ListContexts(
        self, request: pb.ListContextsRequest, context: grpc.ServicerContext
    ) -> pb.ListContextsResponse:
        with status_from(context), self._parts.catalog.read() as session:
            found, more = list_contexts(
                session,
                vm_name=request.vm_name,
                repository=request.repository,
                page_size=request.page_size,
                page_token=request.page_token,
            )
            return pb.ListContextsResponse(
                contexts=[context_message(row) for row in found], next_page_token=more
            )


class DiskService(DiskServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def GetDisk(
        self, request: pb.GetDiskRequest, context: grpc.ServicerContext
    ) -> pb.GetDiskResponse:
        with status_from(context), self._parts.catalog.read() as session:
            disk = find_disk(session, request.job_id, request.disk_index)
            progress = self._parts.board.progress(request.job_id)
            return pb.GetDiskResponse(
                disk=disk_message(disk, progress.get(disk.disk_index)),
                chain=[disk_message(row) for row in chain_of(session, disk)],
            )

    def ListDisks(
        self, request: pb.ListDisksRequest, context: grpc.ServicerContext
    ) -> pb.ListDisksResponse:
        with status_from(context), self._parts.catalog.read() as session:
            found, more = list_disks(
                session,
                context_id=request.context_id,
                job_id=request.job_id,
                page_size=request.page_size,
                page_token=request.page_token,
            )
            return pb.ListDisksResponse(
                disks=[disk_message(row) for row in found], next_page_token=more
            )
