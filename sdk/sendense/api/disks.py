"""Disks of jobs, their chains and change ids."""

from collections.abc import Iterator

from sendense.api.connection import Connection
from sendense.requests import build
from sendense.v1 import backup_pb2, context_pb2, context_pb2_grpc


class DiskCalls(Connection):
    """DiskService."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        super().__init__(address, timeout_s=timeout_s)
        self._disks = context_pb2_grpc.DiskServiceStub(self._channel)

    def get_disk(self, job_id: str, disk_index: int) -> context_pb2.GetDiskResponse:
        """A disk of a job, as `disk`, and the rows down to its full, as `chain`.

        Raises NotFound (JOB_NOT_FOUND, DISK_NOT_FOUND), DataLoss (LAYER_DAMAGED).
        """
        request = build(context_pb2.GetDiskRequest, job_id=job_id, disk_index=disk_index)
        return self._call(self._disks.GetDisk, request)

    def list_disks(
        self, *, context_id: str = "", job_id: str = ""
    ) -> Iterator[backup_pb2.BackupDisk]:
        """Disks of a context or of a job (give exactly one), newest job first."""
        request = build(context_pb2.ListDisksRequest, context_id=context_id, job_id=job_id)
        return self._pages(self._disks.ListDisks, request, lambda page: page.disks)

    def get_chain(self, job_id: str, disk_index: int) -> context_pb2.GetChainResponse:
        """The layers that a disk of a restore point consists of, newest first, with their sizes.

        Raises what `get_disk` raises, and FailedPrecondition (NOT_A_RESTORE_POINT).
        """
        request = build(context_pb2.GetChainRequest, job_id=job_id, disk_index=disk_index)
        return self._call(self._disks.GetChain, request)

    def get_change_id(
        self, vm: str, disk_index: int, *, site: str = "", repository: str = ""
    ) -> context_pb2.GetChangeIdResponse:
        """The change id of a VM's disk that the next increment would build on.

        `vm` is a name, moref or instance uuid; `disk_index` that of the last
        completed job in `repository` (empty: the default one). Raises NotFound
        (VM_NOT_FOUND, REPOSITORY_NOT_FOUND, CHANGE_ID_NOT_FOUND),
        FailedPrecondition (VM_AMBIGUOUS).
        """
        request = build(
            context_pb2.GetChangeIdRequest,
            vm=vm,
            site=site,
            repository=repository,
            disk_index=disk_index,
        )
        return self._call(self._disks.GetChangeId, request)
