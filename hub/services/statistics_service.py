"""StatisticsService."""

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from hub.catalog.statistics import DaySums
from hub.jobs.parts import Parts
from hub.jobs.statistics import Statistics, get_statistics
from sendense.v1 import statistics_pb2 as pb
from sendense.v1.statistics_pb2_grpc import StatisticsServiceServicer
from shared.grpc_errors import status_from


class StatisticsService(StatisticsServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def GetStatistics(
        self, request: pb.GetStatisticsRequest, context: grpc.ServicerContext
    ) -> pb.GetStatisticsResponse:
        with status_from(context):
            found = get_statistics(self._parts, days=request.days, repository=request.repository)
            return pb.GetStatisticsResponse(
                now=_totals(found),
                total=_day(found.total),
                days=[_day(day) for day in found.days],
            )


def _totals(found: Statistics) -> pb.CurrentTotals:
    return pb.CurrentTotals(
        repositories=found.stored.repositories,
        agents=found.agents,
        agents_connected=found.agents_connected,
        virtual_machines=found.virtual_machines,
        virtual_machines_not_protected=found.virtual_machines_not_protected,
        contexts=found.stored.contexts,
        restore_points=found.stored.restore_points,
        jobs_running=found.stored.jobs_running,
        bytes_stored=found.stored.bytes_stored,
    )


def _day(day: DaySums) -> pb.DayStatistics:
    begin = Timestamp()
    begin.FromJsonString(f"{day.day.isoformat()}T00:00:00Z")
    return pb.DayStatistics(
        day=begin,
        jobs=day.jobs,
        jobs_completed=day.jobs_completed,
        jobs_failed=day.jobs_failed,
        jobs_cancelled=day.jobs_cancelled,
        jobs_full=day.jobs_full,
        bytes_read=day.bytes_read,
        bytes_transferred=day.bytes_transferred,
        bytes_stored=day.bytes_stored,
        busy_seconds=day.busy_seconds,
        bytes_read_per_second=day.bytes_read_per_second,
    )
