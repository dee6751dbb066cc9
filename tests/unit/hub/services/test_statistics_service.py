"""GetStatistics over gRPC."""

from collections.abc import Callable
from datetime import UTC, timedelta
from itertools import pairwise

import grpc
import pytest

from sendense.v1 import backup_pb2, repository_pb2
from sendense.v1 import statistics_pb2 as pb
from sendense.v1.statistics_pb2_grpc import StatisticsServiceStub
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm
from tests.unit.hub.running_hub import RunningHub, refusal

Agents = Callable[..., FakeAgent]
T = 20


def statistics(hub: RunningHub, **wanted: object) -> pb.GetStatisticsResponse:
    request = pb.GetStatisticsRequest(**wanted)  # type: ignore[arg-type]
    answer: pb.GetStatisticsResponse = StatisticsServiceStub(hub.channel).GetStatistics(
        request, timeout=T
    )
    return answer


def backed_up(hub: RunningHub, agent: FakeAgent, vm: str, **more: str) -> backup_pb2.Backup:
    job = hub.start(vm, **more)
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk("AB.C")])
    return hub.wait(job.job_id)


def test_backups_are_counted_on_the_day_and_in_the_totals(hub: RunningHub, agents: Agents) -> None:
    lab = agents("lab", FakeVm(), FakeVm("idle", "vm-2", "5020-idle"))
    dr = agents("dr", FakeVm("mail", "vm-1", "5020-mail"))
    done = backed_up(hub, lab, "pgtest1")
    lost = hub.start("mail")
    dr.expect("start_job")
    hub.start("idle")
    dr.send(job_failed={"job_id": lost.job_id})
    hub.wait(lost.job_id)
    dr.close()
    hub.wait_until_away("dr")
    answer = statistics(hub)
    now = answer.now
    assert (now.repositories, now.contexts, now.restore_points) == (1, 3, 1)
    assert (now.agents, now.agents_connected) == (2, 1)
    assert (now.virtual_machines, now.virtual_machines_not_protected) == (3, 2)
    assert now.bytes_stored == done.bytes_stored > 0
    assert (now.jobs_running, answer.total.jobs_failed) == (1, 1)
    today = answer.days[-1] if answer.days[-1].jobs else answer.days[-2]
    assert today.jobs_completed == today.jobs_full == answer.total.jobs_full == 1
    assert answer.total.jobs == 3
    assert answer.total.bytes_read == done.bytes_read > 0
    assert answer.total.bytes_transferred == done.bytes_transferred
    assert answer.total.busy_seconds > 0
    assert answer.total.bytes_read_per_second == pytest.approx(
        done.bytes_read / answer.total.busy_seconds
    )


@pytest.mark.parametrize(("asked", "given"), [(0, 30), (1, 1), (366, 366)])
def test_each_day_is_there_oldest_first_today_the_last(
    hub: RunningHub, asked: int, given: int
) -> None:
    before = hub.parts.now().astimezone(UTC).date()
    answer = statistics(hub, days=asked)
    after = hub.parts.now().astimezone(UTC).date()
    days = [day.day.ToDatetime(UTC) for day in answer.days]
    assert len(days) == given
    assert all(b - a == timedelta(days=1) for a, b in pairwise(days))
    assert before <= days[-1].date() <= after
    assert all(day.time().isoformat() == "00:00:00" for day in days)
    assert answer.total.day == answer.days[0].day
    assert answer.total.jobs == 0
    assert answer.now.restore_points == 0


def test_repository_is_a_filter_of_what_is_stored(
    hub: RunningHub, agent: FakeAgent, tmp_path: object
) -> None:
    request = repository_pb2.CreateRepositoryRequest(name="second", path=f"{tmp_path}/second")
    second = hub.repositories.CreateRepository(request, timeout=T).repository
    backed_up(hub, agent, "pgtest1")
    for named in ("second", second.repository_id):
        answer = statistics(hub, repository=named)
        assert (answer.now.repositories, answer.now.contexts, answer.total.jobs) == (1, 0, 0)
        # The VM has a restore point elsewhere.
        assert answer.now.virtual_machines_not_protected == 0
    answer = statistics(hub, repository="default")
    assert (answer.now.contexts, answer.now.restore_points, answer.total.jobs) == (1, 1, 1)


def test_unknown_repository_and_too_many_days_are_refused(hub: RunningHub) -> None:
    status, reason, facts = refusal(lambda: statistics(hub, repository="nowhere"))
    assert (status, reason) == (grpc.StatusCode.NOT_FOUND, "REPOSITORY_NOT_FOUND")
    assert facts["repository"] == "nowhere"
    for days in (-1, 367):
        status, _, _ = refusal(lambda days=days: statistics(hub, days=days))  # type: ignore[misc]
        assert status == grpc.StatusCode.INVALID_ARGUMENT
