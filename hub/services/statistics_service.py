"""StatisticsService."""

from hub.jobs.parts import Parts
from sendense.v1.statistics_pb2_grpc import StatisticsServiceServicer


class StatisticsService(StatisticsServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
