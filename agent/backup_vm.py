"""One job: one VM, one snapshot, all its disks uploaded, the snapshot removed whatever happened."""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from contextvars import copy_context

import structlog

from agent import job_events
from agent.backup_disk import DiskBackup
from agent.cancellation import Cancellation
from agent.errors import HubMisbehaved, PlanOverdue
from agent.hub_errors import backup_error
from agent.job_tools import JobTools
from agent.job_warnings import JobWarnings
from agent.vsphere.errors import SnapshotMaybeLeft, VsphereError
from agent.vsphere.models import JobSnapshot
from sendense.v1 import agent_session_pb2 as pb

_log = structlog.get_logger(__name__)


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
            warnings = JobWarnings()
            try:
                self._back_up(warnings)
            except Exception as error:  # noqa: BLE001 - reported to the hub, unforeseen ones logged
                event = job_events.failed(self.job_id, self.cancellation.error or error, warnings)
                told = event.job_failed.error
                _log.warning("job_failed", reason=told.reason, error=told.message)
            else:
                event = job_events.uploaded(self.job_id, warnings)
                _log.info("job_uploaded")
            self._send(event)

    def _back_up(self, warnings: JobWarnings) -> None:
        """Everything from the snapshot to its removal; what went wrong beside it in `warnings`."""
        self.cancellation.check()
        with ExitStack() as stack:
            stack.enter_context(self._tools.sweeper.vm_of_job(self.vm_moref, self.cancellation))
            self.cancellation.check()
            _log.info("job_started", vm=self._start.vm_name, vm_moref=self.vm_moref)
            snapshot = self._take_snapshot(warnings)
            stack.callback(self._remove, snapshot, warnings)
            self.cancellation.check()
            self._send(job_events.opened(self.job_id, snapshot))
            self._back_up_disks(snapshot, self._wait_for_plan(snapshot), warnings)
            # Whoever removed the snapshot between two connections changed what was read.
            self._tools.site.require_frozen(snapshot, self.cancellation)

    def _take_snapshot(self, warnings: JobWarnings) -> JobSnapshot:
        try:
            return self._tools.site.take_snapshot(
                job_id=self.job_id,
                vm_moref=self.vm_moref,
                instance_uuid=self._start.instance_uuid,
                quiesce=self._start.quiesce,
                owner=self._owner,
                cancellation=self.cancellation,
            )
        except Exception as error:
            # A cancellation and vSphere's other errors promise that there is none; a defect
            # promises nothing.
            promised = isinstance(error, VsphereError) or error is self.cancellation.error
            if isinstance(error, SnapshotMaybeLeft) or not promised:
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

    def _back_up_disks(
        self, snapshot: JobSnapshot, plans: dict[int, pb.DiskPlan], warnings: JobWarnings
    ) -> None:
        """All disks, side by side within the limit; the first error ends the others."""
        with ThreadPoolExecutor(self._tools.disks_in_parallel, thread_name_prefix="disk") as pool:
            backups: list[Future[None]] = []
            for disk in snapshot.disks:
                backup = DiskBackup(
                    self._tools,
                    snapshot,
                    disk,
                    job_id=self.job_id,
                    cancellation=self.cancellation,
                    warnings=warnings,
                )
                backups.append(pool.submit(copy_context().run, backup.run, plans[disk.index]))
            wait(backups, return_when=FIRST_EXCEPTION)
            for future in backups:
                if future.done() and (error := future.exception()) is not None:
                    assert isinstance(error, Exception)
                    self.cancellation.cancel(error)
        self.cancellation.check()

    def _remove(self, snapshot: JobSnapshot, warnings: JobWarnings) -> None:
        """Remove the snapshot. A failure is a warning: the data is as good as without it."""
        try:
            self._tools.site.remove_snapshot(snapshot)
        except Exception as error:  # noqa: BLE001 - told to the hub; unforeseen ones are logged
            self._left_behind(error, warnings)

    def _left_behind(self, error: Exception, warnings: JobWarnings) -> None:
        """The job's snapshot stays, or may: people are told, and the next sweep looks for it."""
        message = backup_error(error).message
        _log.error("snapshot_left_behind", error=message)
        warnings.add("SNAPSHOT_LEFT_BEHIND", message)
        self._tools.sweeper.left_behind(self.job_id, self.vm_moref)
