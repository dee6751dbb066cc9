"""BackupService: start, get, list, watch, cancel, retry, delete."""

import time
from collections.abc import Iterator
from typing import Final

import grpc

from hub.catalog.contexts import find_context
from hub.catalog.lists import list_jobs
from hub.catalog.models import BackupJob
from hub.catalog.queries import find_job
from hub.errors import HubStopping
from hub.jobs.board import Watch
from hub.jobs.delete import delete_backup
from hub.jobs.end import cancel_backup
from hub.jobs.known_names import require_vm_name
from hub.jobs.parts import Parts
from hub.jobs.retry import retry_backup
from hub.jobs.start import BackupRequest, start_backup
from hub.jobs.states import LIVE
from hub.jobs.waiting import places_of
from hub.services.messages import (
    backup_message,
    deleted_message,
    order_asked,
    status_asked,
    time_asked,
    type_asked,
)
from hub.services.stream_slots import StreamSlots
from sendense.v1 import backup_pb2 as pb
from sendense.v1.backup_pb2_grpc import BackupServiceServicer
from shared.grpc_errors import status_from

PROGRESS_INTERVAL_S: Final = 0.5
# News that never came is found in the row.
REREAD_INTERVAL_S: Final = 10.0


class BackupService(BackupServiceServicer):
    """Translates; the rules are in hub/jobs and hub/catalog."""

    def __init__(self, parts: Parts, slots: StreamSlots) -> None:
        self._parts = parts
        self._slots = slots

    def StartBackup(
        self, request: pb.StartBackupRequest, context: grpc.ServicerContext
    ) -> pb.StartBackupResponse:
        with status_from(context):
            job = start_backup(
                self._parts,
                BackupRequest(
                    vm=request.vm,
                    site=request.site,
                    repository=request.repository,
                    backup_type=type_asked(request.backup_type),
                    request_id=request.request_id,
                    quiesce=request.quiesce,
                ),
            )
            return pb.StartBackupResponse(backup=self._message(job))

    def GetBackup(
        self, request: pb.GetBackupRequest, context: grpc.ServicerContext
    ) -> pb.GetBackupResponse:
        with status_from(context):
            return pb.GetBackupResponse(backup=self._current(request.job_id))

    def ListBackups(
        self, request: pb.ListBackupsRequest, context: grpc.ServicerContext
    ) -> pb.ListBackupsResponse:
        with status_from(context):
            require_vm_name(self._parts, request.vm_name)
            with self._parts.catalog.read() as session:
                if request.context_id:
                    find_context(session, request.context_id)
                jobs, more = list_jobs(
                    session,
                    vm_name=request.vm_name,
                    context_id=request.context_id,
                    repository=request.repository,
                    status=status_asked(request.status),
                    backup_type=type_asked(request.backup_type),
                    created_after=time_asked(request, "created_after"),
                    created_before=time_asked(request, "created_before"),
                    order=order_asked(request.order),
                    page_size=request.page_size,
                    page_token=request.page_token,
                )
            places = places_of(self._parts, jobs)
            return pb.ListBackupsResponse(
                backups=[
                    backup_message(job, with_disks=False, place=places.get(job.id)) for job in jobs
                ],
                next_page_token=more,
            )

    def WatchBackup(
        self, request: pb.WatchBackupRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchBackupResponse]:
        with status_from(context):
            self._slots.take("watch", context)
            with self._parts.board.watch(request.job_id) as watch:
                context.add_callback(watch.close)
                for backup in self._states(request.job_id, watch):
                    yield pb.WatchBackupResponse(backup=backup)

    def CancelBackup(
        self, request: pb.CancelBackupRequest, context: grpc.ServicerContext
    ) -> pb.CancelBackupResponse:
        with status_from(context):
            job = cancel_backup(self._parts, request.job_id, request.reason)
            return pb.CancelBackupResponse(backup=self._message(job))

    def RetryBackup(
        self, request: pb.RetryBackupRequest, context: grpc.ServicerContext
    ) -> pb.RetryBackupResponse:
        with status_from(context):
            job = retry_backup(self._parts, request.job_id, request.request_id)
            return pb.RetryBackupResponse(backup=self._message(job))

    def DeleteBackup(
        self, request: pb.DeleteBackupRequest, context: grpc.ServicerContext
    ) -> pb.DeleteBackupResponse:
        with status_from(context):
            deleted = delete_backup(self._parts, request.job_id, cascade=request.cascade)
            return pb.DeleteBackupResponse(deleted=deleted_message(deleted))

    def _states(self, job_id: str, watch: Watch) -> Iterator[pb.Backup]:
        """The job now and whenever it changes or its disks moved; the last one is final.

        Raises HubStopping when the watch is closed first: by the hub's end, or
        by the client's, who does not hear it any more.
        """
        job, read_at = self._read(job_id), time.monotonic()
        sent = None
        while True:
            message = self._message(job)
            if message != sent:
                yield message
                sent = message
            if job.status not in LIVE:
                return
            changed = watch.wait(PROGRESS_INTERVAL_S)
            if watch.closed:
                raise HubStopping()
            if changed or time.monotonic() - read_at > REREAD_INTERVAL_S:
                job, read_at = self._read(job_id), time.monotonic()

    def _current(self, job_id: str) -> pb.Backup:
        return self._message(self._read(job_id))

    def _read(self, job_id: str) -> BackupJob:
        with self._parts.catalog.read() as session:
            return find_job(session, job_id, with_disks=True)

    def _message(self, job: BackupJob) -> pb.Backup:
        return backup_message(
            job,
            with_disks=True,
            progress=self._parts.board.progress(job.id),
            place=places_of(self._parts, [job]).get(job.id),
        )
