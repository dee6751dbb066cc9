"""One job: one VM, one snapshot, all its disks uploaded, the snapshot removed whatever happened."""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Final

import grpc
import structlog

from agent.areas import Area, to_clusters, total_bytes, whole_disk
from agent.cancellation import Cancellation
from agent.errors import HubMisbehaved, JobCancelled, PlanOverdue
from agent.hub_errors import backup_error
from agent.pipeline import EncoderPool
from agent.sweeper import Sweeper
from agent.transports.disk_reader import DiskReader
from agent.transports.errors import AllocationUnknown
from agent.upload import Patience, UploadResult, upload_disk
from agent.vsphere.errors import ChangeTrackingUnusable, SnapshotMaybeLeft, VsphereError
from agent.vsphere.models import FrozenDisk, JobSnapshot
from agent.vsphere.site import VsphereSite
from sendense.v1 import agent_session_pb2 as pb
from sendense.v1 import backup_pb2

PLAN_WAIT_S: Final = 120.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class JobTools:
    """What the jobs of an agent share."""

    site: VsphereSite
    sweeper: Sweeper
    encoders: EncoderPool
    open_upload_channel: Callable[[], grpc.Channel]  # one connection per disk
    disks_in_parallel: int
    patience: Patience = field(default_factory=Patience)
    plan_wait_s: float = PLAN_WAIT_S


class BackupJob:
    """A job from StartJob to JobUploaded or JobFailed.

    `run` is called once, in a thread of its own; `plan` and `cancellation` may
    be used from any thread, at any stage. `owner` is the agent's id in the hub's
    catalog; the snapshot carries it. `send` hands an event to the session that
    started the job; it must not block or raise.
    """

    def __init__(
        self,
        start: pb.StartJob,
        owner: str,
        tools: JobTools,
        send: Callable[[pb.SessionRequest], None],
    ) -> None:
        self.job_id = start.job_id
        self.vm_moref = start.vmware_vm_id
        self.cancellation = Cancellation()
        self._start = start
        self._owner = owner
        self._tools = tools
        self._send = send
        self._plan: pb.JobPlan | None = None
        self._plan_came = threading.Event()

    def plan(self, plan: pb.JobPlan) -> None:
        """The hub's plan; the first one counts."""
        if self._plan is None:
            self._plan = plan
        self._plan_came.set()

    def run(self) -> None:
        """Run the job to its end and report it. Never raises."""
        with structlog.contextvars.bound_contextvars(job_id=self.job_id):
            warnings: list[backup_pb2.BackupWarning] = []
            try:
                self._back_up(warnings)
            except Exception as error:  # noqa: BLE001 - reported to the hub, unforeseen ones logged
                cause = self.cancellation.error or error
                failed = pb.JobFailed(
                    job_id=self.job_id,
                    error=backup_error(cause),
                    cancelled=isinstance(cause, JobCancelled),
                    warnings=warnings,
                )
                _log.warning("job_failed", reason=failed.error.reason, error=failed.error.message)
                self._send(pb.SessionRequest(job_failed=failed))
            else:
                _log.info("job_uploaded")
                uploaded = pb.JobUploaded(job_id=self.job_id, warnings=warnings)
                self._send(pb.SessionRequest(job_uploaded=uploaded))

    def _back_up(self, warnings: list[backup_pb2.BackupWarning]) -> None:
        """Everything from the snapshot to its removal; what went wrong beside it in `warnings`."""
        self.cancellation.check()
        with ExitStack() as stack:
            stack.enter_context(self._tools.sweeper.vm_of_job(self.vm_moref, self.cancellation))
            self.cancellation.check()
            _log.info("job_started", vm=self._start.vm_name, vm_moref=self.vm_moref)
            snapshot = self._take_snapshot(warnings)
            stack.callback(self._remove, snapshot, warnings)
            self.cancellation.check()
            self._send(pb.SessionRequest(job_opened=_opened(self.job_id, snapshot)))
            self._upload_disks(snapshot, self._wait_for_plan(snapshot))

    def _take_snapshot(self, warnings: list[backup_pb2.BackupWarning]) -> JobSnapshot:
        try:
            return self._tools.site.take_snapshot(
                job_id=self.job_id,
                vm_moref=self.vm_moref,
                instance_uuid=self._start.instance_uuid,
                quiesce=self._start.quiesce,
                owner=self._owner,
            )
        except Exception as error:
            # vSphere's other errors promise that there is none; a defect promises nothing.
            if isinstance(error, SnapshotMaybeLeft) or not isinstance(error, VsphereError):
                self._left_behind(error, warnings)
            raise

    def _wait_for_plan(self, snapshot: JobSnapshot) -> dict[int, pb.DiskPlan]:
        """The plan of each disk by its index. Raises PlanOverdue, HubMisbehaved, a cancellation."""
        with self.cancellation.calling(lambda _: self._plan_came.set()):
            came = self._plan_came.wait(self._tools.plan_wait_s)
        self.cancellation.check()
        if not came or self._plan is None:
            raise PlanOverdue(self.job_id, self._tools.plan_wait_s)
        plans = {plan.disk_index: plan for plan in self._plan.disks}
        if len(plans) != len(self._plan.disks) or plans.keys() != {
            disk.index for disk in snapshot.disks
        }:
            raise HubMisbehaved(
                f"its plan is for disks {sorted(p.disk_index for p in self._plan.disks)}, "
                f"the snapshot has {sorted(disk.index for disk in snapshot.disks)}"
            )
        return plans

    def _upload_disks(self, snapshot: JobSnapshot, plans: dict[int, pb.DiskPlan]) -> None:
        """All disks, side by side within the limit; the first error ends the others."""
        with ThreadPoolExecutor(self._tools.disks_in_parallel, thread_name_prefix="disk") as pool:
            uploads: list[Future[None]] = [
                pool.submit(
                    copy_context().run, self._upload_disk, snapshot, disk, plans[disk.index]
                )
                for disk in snapshot.disks
            ]
            wait(uploads, return_when=FIRST_EXCEPTION)
            for upload in uploads:
                if upload.done() and (error := upload.exception()) is not None:
                    assert isinstance(error, Exception)
                    self.cancellation.cancel(error)
        self.cancellation.check()

    def _upload_disk(self, snapshot: JobSnapshot, disk: FrozenDisk, plan: pb.DiskPlan) -> None:
        self.cancellation.check()
        changed, full_reason = self._changes(snapshot, disk, plan)
        self.cancellation.check()
        with ExitStack() as stack:
            reader = stack.enter_context(
                self._tools.site.open_disk(snapshot, disk, self.cancellation)
            )
            areas = changed if changed is not None else _allocated(reader, disk)
            areas = to_clusters(areas, disk.capacity_bytes)
            _log.info(
                "disk_upload_started",
                disk=disk.label,
                incremental=changed is not None,
                bytes_planned=total_bytes(areas),
                full_reason=full_reason or None,
            )
            channel = stack.enter_context(closing(self._tools.open_upload_channel()))
            result = upload_disk(
                channel,
                reader,
                areas,
                job_id=self.job_id,
                disk_index=disk.index,
                keep_zeros=changed is not None,
                encoders=self._tools.encoders,
                full_reason=full_reason,
                cancellation=self.cancellation,
                patience=self._tools.patience,
            )
        _log_sealed(disk, result)

    def _changes(
        self, snapshot: JobSnapshot, disk: FrozenDisk, plan: pb.DiskPlan
    ) -> tuple[list[Area] | None, str]:
        """Changed areas, or None for a full, with the reason when an increment was planned."""
        match plan.backup_type:
            case backup_pb2.BACKUP_TYPE_FULL:
                return None, ""
            case backup_pb2.BACKUP_TYPE_INCREMENTAL if plan.base_change_id:
                try:
                    return self._tools.site.changed_areas(snapshot, disk, plan.base_change_id), ""
                except ChangeTrackingUnusable as error:
                    return None, str(error)
            case _:
                raise HubMisbehaved(f"its plan for disk {disk.index} is no plan: {plan}")

    def _remove(self, snapshot: JobSnapshot, warnings: list[backup_pb2.BackupWarning]) -> None:
        """Remove the snapshot. A failure is a warning: the data is as good as without it."""
        try:
            self._tools.site.remove_snapshot(snapshot)
        except Exception as error:  # noqa: BLE001 - told to the hub; unforeseen ones are logged
            self._left_behind(error, warnings)

    def _left_behind(self, error: Exception, warnings: list[backup_pb2.BackupWarning]) -> None:
        """The job's snapshot stays, or may: people are told, and the next sweep looks for it."""
        message = backup_error(error).message
        _log.error("snapshot_left_behind", error=message)
        warnings.append(backup_pb2.BackupWarning(code="SNAPSHOT_LEFT_BEHIND", message=message))
        self._tools.sweeper.left_behind(self.job_id)


def _allocated(reader: DiskReader, disk: FrozenDisk) -> list[Area]:
    try:
        return reader.allocated_areas()
    except AllocationUnknown as error:
        _log.warning("whole_disk_is_read", disk=disk.label, reason=str(error))
        return whole_disk(disk.capacity_bytes)


def _opened(job_id: str, snapshot: JobSnapshot) -> pb.JobOpened:
    levels = {
        "crash": backup_pb2.CONSISTENCY_LEVEL_CRASH,
        "file_system": backup_pb2.CONSISTENCY_LEVEL_FILE_SYSTEM,
    }
    return pb.JobOpened(
        job_id=job_id,
        snapshot=snapshot.moref,
        other_snapshots=snapshot.other_snapshots,
        consistency_level=levels[snapshot.consistency],
        disks=[
            pb.SnapshotDisk(
                disk_index=disk.index,
                vmware_disk_key=disk.key,
                disk_uuid=disk.uuid,
                label=disk.label,
                capacity_bytes=disk.capacity_bytes,
                change_id=disk.change_id,
            )
            for disk in snapshot.disks
        ],
        warnings=[
            backup_pb2.BackupWarning(
                code=warning.code, message=warning.message, disk_label=warning.disk_label
            )
            for warning in snapshot.warnings
        ],
    )


def _log_sealed(disk: FrozenDisk, result: UploadResult) -> None:
    _log.info(
        "disk_sealed",
        disk=disk.label,
        bytes_read=result.bytes_read,
        bytes_sent=result.payload_bytes,
        bytes_stored=result.bytes_stored,
    )
