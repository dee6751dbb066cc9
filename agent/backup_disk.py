"""One disk of a job: how it is read is decided, then it is uploaded."""

from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Final

import structlog

from agent.areas import Area
from agent.base_digests import BaseDigests
from agent.cancellation import Cancellation
from agent.disk_checks import DiskChecks
from agent.disk_reads import DiskReads
from agent.errors import HubMisbehaved, HubRefused
from agent.hub_retries import HubRetries, require_hub
from agent.job_tools import JobTools
from agent.job_warnings import JobWarnings
from agent.missed_changes import MissedChanges
from agent.plan_disk import DiskPlanner
from agent.read_plan import ReadPlan
from agent.sent_layer import SentLayer
from agent.upload import UploadResult, upload_disk
from agent.vsphere.errors import ChangeTrackingUnusable
from agent.vsphere.models import FrozenDisk, JobSnapshot
from sendense.v1 import agent_session_pb2 as pb
from sendense.v1 import backup_pb2
from shared.fail_points import fail_point

# What the hub says when it is asked for the base of a disk that is sealed.
SEALED_ALREADY: Final = "DISK_NOT_UPLOADABLE"

_log = structlog.get_logger(__name__)


class DiskBackup:
    """One disk as the job's snapshot froze it; `run` is called once, in a thread of its own."""

    def __init__(
        self,
        tools: JobTools,
        snapshot: JobSnapshot,
        disk: FrozenDisk,
        *,
        job_id: str,
        cancellation: Cancellation,
        warnings: JobWarnings,
    ) -> None:
        self._tools = tools
        self._snapshot = snapshot
        self._disk = disk
        self._job_id = job_id
        self._cancellation = cancellation
        self._warnings = warnings
        self._missed = MissedChanges()
        self._decided: ReadPlan | None = None  # once for all attempts
        self._retries = HubRetries(disk.label, tools.presence, tools.patience.hub_s, cancellation)
        self._layer = SentLayer(
            job_id,
            disk.label,
            progressed=self._retries.progressed,
            served=self._retries.served,
        )

    def run(self, plan: pb.DiskPlan) -> None:
        """Read and upload the disk as planned, or as its checks demand. Raises what ends the job.

        When the hub goes away, what is missing is done when it is back: see HubRetries.
        """
        self._cancellation.check()
        try:
            changed, unusable = self._tracked(plan)
            self._cancellation.check()
            result = self._retries.run(lambda: self._attempt(plan, changed, unusable))
            _log_sealed(self._disk, result)
        finally:
            # Told as well when the job fails: the tracking is no better for that.
            self._warn_of_missed_changes()

    def _attempt(self, plan: pb.DiskPlan, changed: list[Area], unusable: str) -> UploadResult:
        """All of it, as far as it is not done. Holds nothing of the host or the hub afterwards."""
        with ExitStack() as stack:
            channel = stack.enter_context(closing(self._tools.open_upload_channel()))
            if self._retries.failed:
                # A host's connection is not taken for a hub that is still away.
                require_hub(channel, self._cancellation)
            reads = self._open_reads(stack)
            reading = self._reading(plan, changed, unusable, reads, stack)
            return upload_disk(
                channel,
                reads,
                reading,
                job_id=self._job_id,
                disk_index=self._disk.index,
                encoders=self._tools.encoders,
                cancellation=self._cancellation,
                patience=self._tools.patience,
                layer=self._layer,
            )

    def _reading(
        self,
        plan: pb.DiskPlan,
        changed: list[Area],
        unusable: str,
        reads: DiskReads,
        stack: ExitStack,
    ) -> ReadPlan:
        """The plan, decided once: frames of two plans must not meet in one layer."""
        if self._decided is not None:
            base = self._open_base(stack) if self._decided.base is not None else None
            return replace(self._decided, base=base)
        self._missed = MissedChanges()
        try:
            decided = self._decide(plan, changed, unusable, reads, stack)
        except HubRefused as error:
            if error.reason != SEALED_ALREADY:
                raise
            # By an earlier run of the agent: the hub answers its upload with the seal.
            self._layer.must_be_sealed = error
            return ReadPlan(plan.read_method, [])
        self._decided = decided
        self._retries.progressed()
        _log_started(self._disk, decided)
        fail_point("agent.disk.planned")
        return decided

    def _tracked(self, plan: pb.DiskPlan) -> tuple[list[Area], str]:
        """What tracking tells, or why it cannot be used, when it is to be used."""
        if plan.read_method != backup_pb2.READ_METHOD_CHANGED:
            return [], ""
        if not plan.base_change_id:
            raise HubMisbehaved(f"its plan for disk {self._disk.index} lacks the change id")
        try:
            areas = self._tools.site.changed_areas(
                self._snapshot, self._disk, plan.base_change_id, self._cancellation
            )
        except ChangeTrackingUnusable as error:
            return [], str(error)
        return areas, ""

    def _open_reads(self, stack: ExitStack) -> DiskReads:
        reader = self._tools.site.open_disk(self._snapshot, self._disk, self._cancellation)
        stack.enter_context(reader)
        return stack.enter_context(
            DiskReads(
                reader,
                f"{self._disk.label} ({self._disk.file_name})",
                cancellation=self._cancellation,
                read_s=self._tools.patience.read_s,
            )
        )

    def _decide(
        self,
        plan: pb.DiskPlan,
        changed: list[Area],
        unusable: str,
        reads: DiskReads,
        stack: ExitStack,
    ) -> ReadPlan:
        checks = DiskChecks(
            reads,
            job_id=self._job_id,
            disk_index=self._disk.index,
            label=self._disk.label,
            settings=self._tools.sampling,
            warnings=self._warnings,
        )
        planner = DiskPlanner(checks, reads.capacity_bytes, self._missed)
        match plan.read_method:
            case backup_pb2.READ_METHOD_ALLOCATED:
                return planner.allocated()
            case backup_pb2.READ_METHOD_COMPARED:
                return planner.compared(self._open_base(stack))
            case backup_pb2.READ_METHOD_CHANGED if unusable:
                return planner.compared(self._open_base(stack), unusable)
            case backup_pb2.READ_METHOD_CHANGED:
                return planner.changed(changed, self._open_base(stack))
            case _:
                raise HubMisbehaved(f"its plan for disk {self._disk.index} is no plan: {plan}")

    def _open_base(self, stack: ExitStack) -> BaseDigests:
        channel = stack.enter_context(closing(self._tools.open_upload_channel()))
        base = BaseDigests(
            channel,
            job_id=self._job_id,
            disk_index=self._disk.index,
            capacity_bytes=self._disk.capacity_bytes,
            cancellation=self._cancellation,
            answer_s=self._tools.patience.answer_s,
        )
        return stack.enter_context(closing(base))

    def _warn_of_missed_changes(self) -> None:
        if self._missed.count:
            self._warnings.add(
                "CBT_MISSED_CHANGES", self._missed.told_of(self._disk.label), self._disk.label
            )


def _log_started(disk: FrozenDisk, plan: ReadPlan) -> None:
    _log.info(
        "disk_upload_started",
        disk=disk.label,
        read_method=backup_pb2.ReadMethod.Name(plan.method).removeprefix("READ_METHOD_").lower(),
        reason=plan.full_reason or plan.reason or None,
        bytes_planned=plan.bytes_planned,
        clusters_sampled=plan.sampling.clusters_sampled if plan.sampling else None,
    )


def _log_sealed(disk: FrozenDisk, result: UploadResult) -> None:
    _log.info(
        "disk_sealed",
        disk=disk.label,
        bytes_read=result.bytes_read,
        bytes_unchanged=result.bytes_unchanged,
        bytes_sent=result.payload_bytes,
        bytes_stored=result.bytes_stored,
        resumes=result.resumes,
        bytes_resent=result.bytes_resent,
    )
