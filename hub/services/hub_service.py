"""HubService."""

from typing import Final

import grpc

from hub.jobs.parts import Parts
from hub.jobs.recovery import Decision, LayerFound, RecoveredDisk, RecoveredJob
from sendense.v1 import hub_pb2 as pb
from sendense.v1.hub_pb2_grpc import HubServiceServicer
from shared.grpc_errors import status_from

_DECISIONS: Final = {
    Decision.QUEUED: pb.RECOVERY_DECISION_QUEUED,
    Decision.WAITS_FOR_AGENT: pb.RECOVERY_DECISION_WAITS_FOR_AGENT,
    Decision.COMPLETED: pb.RECOVERY_DECISION_COMPLETED,
    Decision.FAILED: pb.RECOVERY_DECISION_FAILED,
    Decision.CANCELLED: pb.RECOVERY_DECISION_CANCELLED,
}
_LAYERS: Final = {
    LayerFound.NONE: pb.RECOVERED_LAYER_NONE,
    LayerFound.REOPENED: pb.RECOVERED_LAYER_REOPENED,
    LayerFound.SEALED: pb.RECOVERED_LAYER_SEALED,
}


class HubService(HubServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def RecoveryReport(
        self, request: pb.RecoveryReportRequest, context: grpc.ServicerContext
    ) -> pb.RecoveryReportResponse:
        with status_from(context):
            report = self._parts.recovery.report
            if report is None:
                return pb.RecoveryReportResponse()
            return pb.RecoveryReportResponse(
                started_at=report.started_at,
                finished_at=report.finished_at,
                jobs=[_job(job) for job in report.jobs],
                removed_paths=report.removed_paths,
                removed_count=report.removed_count,
                problems=report.problems,
            )


def _job(job: RecoveredJob) -> pb.RecoveredJob:
    return pb.RecoveredJob(
        job_id=job.job_id,
        vm_name=job.vm_name,
        decision=_DECISIONS[job.decision],
        reason=job.reason,
        disks=[_disk(disk) for disk in job.disks],
    )


def _disk(disk: RecoveredDisk) -> pb.RecoveredDisk:
    return pb.RecoveredDisk(
        disk_index=disk.disk_index,
        layer=_LAYERS[disk.layer],
        durable_frames=disk.durable_frames,
        durable_through_cluster=max(0, disk.durable_through_cluster),
        durable_payload_bytes=disk.durable_payload_bytes,
        journal_bytes_cut=disk.journal_bytes_cut,
        layer_bytes_cut=disk.layer_bytes_cut,
    )
