"""Statistics: what there is, and what was done day by day."""

from sendense.api.connection import Connection
from sendense.requests import build
from sendense.v1 import statistics_pb2, statistics_pb2_grpc


class StatisticsCalls(Connection):
    """StatisticsService."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        super().__init__(address, timeout_s=timeout_s)
        self._statistics = statistics_pb2_grpc.StatisticsServiceStub(self._channel)

    def get_statistics(
        self, *, days: int = 30, repository: str = ""
    ) -> statistics_pb2.GetStatisticsResponse:
        """What there is now, and the backups of the last days (in UTC, with today), by day.

        `repository` is a name or id, empty for all. Raises NotFound
        (REPOSITORY_NOT_FOUND), InvalidArgument for more than 366 days.
        """
        request = build(statistics_pb2.GetStatisticsRequest, days=days, repository=repository)
        return self._call(self._statistics.GetStatistics, request)
