"""ContextService and DiskService."""

import grpc

from hub.catalog.chains import chain_of
from hub.catalog.contexts import find_context
from hub.catalog.lists import list_contexts, list_disks
from hub.catalog.models import BackupDisk
from hub.catalog.queries import find_disk
from hub.jobs.chains import disk_chain
from hub.jobs.change_ids import get_change_id
from hub.jobs.delete import delete_context
from hub.jobs.known_names import require_site, require_vm_name
from hub.jobs.parts import Parts
from hub.jobs.states import Status
from hub.services.messages import (
    change_id_message,
    context_message,
    deleted_message,
    disk_message,
    layer_message,
)
from sendense.v1 import backup_pb2
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
        with status_from(context):
            require_vm_name(self._parts, request.vm_name)
            require_site(self._parts, request.site)
            with self._parts.catalog.read() as session:
                found, more = list_contexts(
                    session,
                    vm_name=request.vm_name,
                    repository=request.repository,
                    site=request.site,
                    page_size=request.page_size,
                    page_token=request.page_token,
                )
                return pb.ListContextsResponse(
                    contexts=[context_message(row) for row in found], next_page_token=more
                )

    def DeleteContext(
        self, request: pb.DeleteContextRequest, context: grpc.ServicerContext
    ) -> pb.DeleteContextResponse:
        with status_from(context):
            deleted = delete_context(self._parts, request.context_id)
            return pb.DeleteContextResponse(deleted=deleted_message(deleted))


class DiskService(DiskServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def GetDisk(
        self, request: pb.GetDiskRequest, context: grpc.ServicerContext
    ) -> pb.GetDiskResponse:
        with status_from(context), self._parts.catalog.read() as session:
            disk = find_disk(session, request.job_id, request.disk_index)
            return pb.GetDiskResponse(
                disk=self._message(disk),
                chain=[self._message(row) for row in chain_of(session, disk)],
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
                disks=[self._message(row) for row in found], next_page_token=more
            )

    def GetChain(
        self, request: pb.GetChainRequest, context: grpc.ServicerContext
    ) -> pb.GetChainResponse:
        with status_from(context):
            layers = disk_chain(self._parts, request.job_id, request.disk_index)
            return pb.GetChainResponse(
                layers=[layer_message(layer) for layer in layers],
                bytes_stored=sum(layer.disk.bytes_stored for layer in layers),
            )

    def GetChangeId(
        self, request: pb.GetChangeIdRequest, context: grpc.ServicerContext
    ) -> pb.GetChangeIdResponse:
        with status_from(context):
            return change_id_message(
                get_change_id(
                    self._parts,
                    vm=request.vm,
                    site=request.site,
                    repository=request.repository,
                    disk_index=request.disk_index,
                )
            )

    def _message(self, disk: BackupDisk) -> backup_pb2.BackupDisk:
        """A disk, while it moves with the numbers of the moment."""
        if disk.status is not Status.RUNNING:
            return disk_message(disk)
        progress = self._parts.board.progress(disk.backup_job_id)
        return disk_message(disk, progress.get(disk.disk_index))
