"""One job: one VM, one snapshot, all its disks uploaded, the snapshot removed whatever happened."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from contextvars import copy_context
from typing import Final

import structlog

from agent import job_events
from agent.backup_disk import DiskBackup
from agent.cancellation import Cancellation
from agent.errors import HubMisbehaved, HubUnreachable, PlanOverdue
from agent.hub_errors import backup_error
from agent.job_tools import JobTools
from agent.job_warnings import JobWarnings
from agent.vsphere.errors import SnapshotMaybeLeft, SnapshotNotRemoved, VsphereError
from agent.vsphere.models import JobSnapshot, ToldDisk
from sendense.v1 import agent_session_pb2 as pb
from shared.fail_points import fail_point

_PRESENCE_POLL_S: Final = 0.5

_log = structlog.get_logger(__name__)


class BackupJob:
    """A job from StartJob or ResumeJob to JobUploaded or JobFailed, over any number of sessions.

    `run` is called once, in a thread of its own; `plan` and `cancellation` may
    be used from any thread, at any stage. `owner` is the agent's id in the hub's
    catalog; the snapshot carries it. `post` takes an event for the hub; it must not
    block or raise. With `resume` the job looks for the snapshot that an earlier run of
    the agent took, instead of taking one.
    """

    def __init__(
        self,
        start: pb.StartJob,
        owner: str,
        tools: JobTools,
        post: Callable[[pb.SessionRequest], None],
        *,
        resume: pb.ResumeJob | None = None,
    ) -> None:
        self.job_id = start.job_id
        self.vm_moref = start.vmware_vm_id
        self.is_resumed = resume is not None
        """There is a snapshot to remove from the beginning."""
        self.is_over = False
        """What is to be told of its end is told."""
        self.cancellation = Cancellation()
        self._start = start
        self._owner = owner
        self._tools = tools
        self._post = post
        self._resume = resume
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
            self.is_over = True
            self._post(event)
            fail_point("agent.job.uploaded")

    def _back_up(self, warnings: JobWarnings) -> None:
        """Everything from the snapshot to its removal; what went wrong beside it in `warnings`."""
        fail_point("agent.job.taken")
        with ExitStack() as stack:
            self._hold_vm(stack, warnings)
            snapshot = (
                self._find_snapshot(self._resume, warnings)
                if self._resume is not None
                else self._take_snapshot(warnings)
            )
            stack.callback(self._remove, snapshot, warnings)
            fail_point("agent.snapshot.taken")
            self.cancellation.check()
            self._post(job_events.opened(self.job_id, snapshot))
            fail_point("agent.job.opened")
            plans = self._wait_for_plan(snapshot)
            fail_point("agent.plan.received")
            self._back_up_disks(snapshot, plans, warnings)
            # Whoever removed the snapshot between two connections changed what was read.
            self._tools.site.require_frozen(snapshot, self.cancellation)
            fail_point("agent.job.checked")
            self.cancellation.check()
            self._post(job_events.read(self.job_id))
            fail_point("agent.job.read")

    def _hold_vm(self, stack: ExitStack, warnings: JobWarnings) -> None:
        """Until `stack` ends. Raises VmBusy, LoginFailed, a cancellation."""
        try:
            if self._resume is None:
                self.cancellation.check()
            stack.enter_context(self._tools.sweeper.vm_of_job(self.vm_moref, self.cancellation))
        except Exception as error:
            if self._resume is not None:
                self._left_behind(error, warnings)
            raise
        _log.info(
            "job_resumed" if self._resume is not None else "job_started",
            vm=self._start.vm_name,
            vm_moref=self.vm_moref,
        )

    def _find_snapshot(self, resume: pb.ResumeJob, warnings: JobWarnings) -> JobSnapshot:
        """What the earlier run took; whatever stands of it is removed when the job cannot go on."""
        try:
            self._require_hub()
            return self._tools.site.find_snapshot(
                moref=resume.snapshot,
                job_id=self.job_id,
                vm_moref=self.vm_moref,
                instance_uuid=self._start.instance_uuid,
                quiesce=self._start.quiesce,
                owner=self._owner,
                disks=[
                    ToldDisk(
                        index=disk.disk_index,
                        key=disk.vmware_disk_key,
                        uuid=disk.disk_uuid,
                        capacity_bytes=disk.capacity_bytes,
                        change_id=disk.change_id,
                    )
                    for disk in resume.disks
                ],
                cancellation=self.cancellation,
            )
        except Exception:
            try:
                self._tools.site.remove_snapshots_of_job(self.job_id, self.vm_moref, self._owner)
            except Exception as error:  # noqa: BLE001 - told to the hub; unforeseen ones are logged
                self._left_behind(error, warnings)
            raise

    def _require_hub(self) -> None:
        """Raises HubUnreachable when the hub has been away for too long, a cancellation."""
        self.cancellation.check()
        longest_s = self._tools.patience.hub_s
        if self._tools.presence.away_s() > longest_s:
            raise HubUnreachable(f"it was away for longer than hub_wait_s, {longest_s:g} s")

    def _take_snapshot(self, warnings: JobWarnings) -> JobSnapshot:
        self._require_hub()
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
            left = isinstance(error, SnapshotMaybeLeft | SnapshotNotRemoved)
            promised = isinstance(error, VsphereError) or error is self.cancellation.error
            if left or not promised:
                self._left_behind(error, warnings)
            raise

    def _wait_for_plan(self, snapshot: JobSnapshot) -> dict[int, pb.DiskPlan]:
        """The plan of each disk by its index.

        Raises PlanOverdue, HubUnreachable, HubMisbehaved, a cancellation.
        """
        waited_s = 0.0  # while the hub was there
        with self.cancellation.calling(lambda _: self._plan_came.set()):
            while not self._plan_came.is_set():
                left_s = self._tools.plan_wait_s - waited_s
                if left_s <= 0:
                    raise PlanOverdue(self.job_id, self._tools.plan_wait_s)
                begun_s = time.monotonic()
                self._plan_came.wait(min(left_s, _PRESENCE_POLL_S))
                self._require_hub()
                if not self._tools.presence.away_s():
                    waited_s += time.monotonic() - begun_s
        self.cancellation.check()
        assert self._plan is not None
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
        else:
            fail_point("agent.snapshot.removed")

    def _left_behind(self, error: Exception, warnings: JobWarnings) -> None:
        """The job's snapshot stays, or may: people are told, and the next sweep looks for it."""
        message = backup_error(error).message
        _log.error("snapshot_left_behind", error=message)
        warnings.add("SNAPSHOT_LEFT_BEHIND", message)
        self._tools.sweeper.left_behind(self.job_id, self.vm_moref)
