"""The queue of jobs: first in first out within limits, and handing out exactly once."""

import threading
from collections.abc import Callable, Iterator

import pytest

from hub.config import HubSettings
from hub.jobs import dispatch
from hub.jobs.queue import AgentState, JobQueue, Limits, QueuedJob
from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm
from tests.unit.hub.running_hub import RunningHub, running

ONE_AT_A_TIME = AgentState(jobs_in_parallel=1)
FREE = AgentState()


def job(name: str, *, site: str = "lab", repository: str = "r", on: str = "") -> QueuedJob:
    return QueuedJob(name, site, repository, frozenset(on.split()))


def queue(*jobs: QueuedJob, hub: int = 9, repository: int = 9, datastore: int = 9) -> JobQueue:
    made = JobQueue(Limits(hub, repository, datastore))
    for one in jobs:
        made.add(one)
    return made


def taken(queue: JobQueue, agent: AgentState = FREE) -> list[str]:
    kept: set[tuple[str, ...]] = set()
    return [one.job_id for one in queue.waiting() if queue.take(one.job_id, agent, kept)]


def test_jobs_are_taken_in_the_order_in_which_they_came() -> None:
    waits = queue(job("c"), job("a"), job("b"), hub=2)
    assert taken(waits) == ["c", "a"]
    assert taken(waits) == []
    waits.done("c")
    assert taken(waits) == ["b"]


@pytest.mark.parametrize(
    ("limits", "second", "third", "waits_for"),
    [
        ({"hub": 1}, job("b"), None, "the end of the one job that this hub runs at a time"),
        ({"repository": 1}, job("b"), job("c", repository="s"), "into its repository"),
        ({"datastore": 1}, job("b", on="ssd x"), job("c", on="hdd"), "from datastore 'ssd' of"),
        # The datastore of another site is another one.
        ({"datastore": 1}, job("b", on="ssd"), job("c", on="ssd", site="dr"), "datastore 'ssd'"),
    ],
)
def test_job_that_a_limit_holds_back_lets_the_next_one_pass(
    limits: dict[str, int], second: QueuedJob, third: QueuedJob | None, waits_for: str
) -> None:
    waits = queue(job("a", on="ssd"), second, *([third] if third else []), **limits)
    assert taken(waits) == (["a", "c"] if third else ["a"])
    (place,) = waits.positions().values()
    assert place.position == 1
    assert waits_for in place.waiting_for
    waits.done("a")
    assert taken(waits) == ["b"]


def test_vm_with_disks_on_busy_datastores_is_not_passed_for_ever() -> None:
    """Whenever a place of one is free, the other one is full; single disks come without end."""
    waits = queue(job("hdd-0", on="hdd"), job("ssd-0", on="ssd"), datastore=1)
    assert taken(waits) == ["hdd-0", "ssd-0"]
    waits.add(job("both", on="hdd ssd"))
    order: list[str] = []
    for number in range(1, 4):
        for datastore in ("hdd", "ssd"):
            waits.add(job(f"{datastore}-{number}", on=datastore))
            for one in waits.running():
                if datastore in one.datastores:
                    waits.done(one.job_id)
            order += taken(waits)
    assert order[0] == "both"
    assert sorted(order + [one.job_id for one in waits.waiting()]) == [
        "both",
        *(f"{name}-{number}" for name in ("hdd", "ssd") for number in range(1, 4)),
    ]


def test_job_that_waits_for_a_datastore_keeps_one_place_in_its_others() -> None:
    waits = queue(
        job("a", on="hdd"), job("b", on="hdd"), job("c", on="hdd ssd"), job("d", on="ssd"),
        job("e", on="ssd"), datastore=2,
    )  # fmt: skip
    assert taken(waits) == ["a", "b", "d"]
    assert "datastore 'ssd'" in waits.positions()["e"].waiting_for
    waits.done("b")
    assert taken(waits) == ["c"]


def test_agent_gets_no_more_than_it_runs() -> None:
    waits = queue(job("a"), job("b"))
    assert taken(waits, ONE_AT_A_TIME) == ["a"]
    place = waits.positions(lambda site: ONE_AT_A_TIME)["b"]
    assert place.waiting_for == "the end of the one job that the agent of 'lab' runs at a time"


def test_job_of_an_agent_that_is_away_waits_for_it_and_others_pass() -> None:
    waits = queue(job("a", site="away"), job("b"))
    state = {"away": AgentState(away="the agent of 'away'"), "lab": FREE}
    assert not waits.take("a", state["away"])
    assert [waits.positions(state.__getitem__)[one].waiting_for for one in "ab"] == [
        "the agent of 'away'",
        "",
    ]
    assert waits.take("b", state["lab"])


def test_job_that_comes_back_waits_at_its_old_place() -> None:
    waits = queue(job("a"), job("b"), job("c"), hub=1)
    assert taken(waits) == ["a"]
    waits.add(job("a"))
    assert [one.job_id for one in waits.waiting()] == ["a", "b", "c"]
    assert taken(waits) == ["a"]
    waits.put_back("a")
    assert [one.job_id for one in waits.waiting()] == ["a", "b", "c"]


def test_places_have_no_gap_whatever_leaves() -> None:
    waits = queue(*(job(name) for name in "abcdef"), hub=1)
    taken(waits)
    assert waits.withdraw("c")
    assert not waits.withdraw("c")
    waits.done("e")
    assert [(one, at.position) for one, at in waits.positions().items()] == [
        ("b", 1),
        ("d", 2),
        ("f", 3),
    ]


def test_job_that_runs_already_counts_for_limits_once() -> None:
    waits = queue(job("b"), hub=1)
    waits.took("a", "lab", "r", ["ssd"])
    waits.took("a", "lab", "r", ["ssd"])
    assert taken(waits) == []
    waits.done("a")
    waits.done("a")
    assert taken(waits) == ["b"]


def test_limits_hold_whatever_many_threads_do() -> None:
    """No job is taken twice, no limit is passed at any moment, all are taken in the end."""
    names = [f"job-{number}" for number in range(400)]
    waits = queue(*(job(name, on=f"ds{hash(name) % 7}") for name in names), hub=5, datastore=2)
    seen: list[str] = []
    most, lock = [0], threading.Lock()

    def run() -> None:
        while waits.waiting_count():
            for name in taken(waits)[:]:
                with lock:
                    seen.append(name)
                    most[0] = max(most[0], len(waits.running()))
                waits.done(name)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(seen) == sorted(names)
    assert most[0] <= 5


@pytest.fixture
def narrow(settings: HubSettings) -> Iterator[RunningHub]:
    """A hub that runs one job at a time."""
    with running(settings.model_copy(update={"jobs_in_parallel": 1})) as hub:
        yield hub


def vms(count: int) -> list[FakeVm]:
    return [FakeVm(f"vm{n}", f"vm-{n}", f"uuid-{n}", [FakeDisk("AB")]) for n in range(count)]


@pytest.fixture
def agent_of_three(narrow: RunningHub) -> Iterator[FakeAgent]:
    with FakeAgent(narrow.address, vms=vms(3)) as agent:
        yield agent.connect()


def test_started_job_is_answered_with_its_place_and_runs_in_its_turn(
    narrow: RunningHub, agent_of_three: FakeAgent
) -> None:
    first, second, third = (narrow.start(f"vm{number}") for number in range(3))
    assert [first.queue_position, second.queue_position, third.queue_position] == [0, 1, 2]
    assert first.waiting_for == ""
    assert third.waiting_for == "the end of the one job that this hub runs at a time"
    listed = narrow.backups.ListBackups(pb.ListBackupsRequest(), timeout=20).backups
    assert {one.job_id: one.queue_position for one in listed} == {
        first.job_id: 0,
        second.job_id: 1,
        third.job_id: 2,
    }
    for job_id in (first.job_id, second.job_id):
        assert agent_of_three.expect("start_job").job_id == job_id
        agent_of_three.run_job(job_id, [FakeDisk("AB")])
        assert narrow.wait(job_id).status == pb.BACKUP_STATUS_COMPLETED
    assert agent_of_three.expect("start_job").job_id == third.job_id


def test_watch_tells_when_the_place_changes(narrow: RunningHub, agent_of_three: FakeAgent) -> None:
    first, second, third = (narrow.start(f"vm{number}").job_id for number in range(3))
    narrow.wait(third, lambda job: job.queue_position == 2)
    narrow.cancel(second)
    narrow.wait(third, lambda job: job.queue_position == 1)
    assert narrow.wait(second).status == pb.BACKUP_STATUS_CANCELLED
    assert narrow.get(first).status == pb.BACKUP_STATUS_PENDING


def test_cancelled_job_that_is_queued_never_reaches_its_agent(
    narrow: RunningHub, agent_of_three: FakeAgent
) -> None:
    first, second, third = (narrow.start(f"vm{number}").job_id for number in range(3))
    assert narrow.cancel(second).status == pb.BACKUP_STATUS_CANCELLED
    assert agent_of_three.expect("start_job").job_id == first
    agent_of_three.run_job(first, [FakeDisk("AB")])
    assert agent_of_three.expect("start_job").job_id == third


def test_job_is_handed_out_once_though_many_hand_out(
    narrow: RunningHub, agent_of_three: FakeAgent
) -> None:
    job_id = narrow.start("vm0").job_id
    threads = [threading.Thread(target=dispatch.hand_out, args=(narrow.parts,)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert agent_of_three.expect("start_job").job_id == job_id
    narrow.cancel(job_id)
    # The next command: no second StartJob came before it.
    assert agent_of_three.expect("cancel_job").job_id == job_id


def test_job_that_could_not_be_sent_stays_queued_with_a_lease_until_its_agent_is_back(
    hub: RunningHub, agents: Callable[..., FakeAgent]
) -> None:
    agent = agents()
    job_id = hub.start().job_id
    agent.expect("start_job")
    agent.close()
    hub.wait_until_away("lab")
    assert hub.cancel(job_id).status == pb.BACKUP_STATUS_CANCELLED
    with hub.parts.catalog.read() as session:
        row = dispatch.find_job(session, job_id)
    dispatch.queue_job(hub.parts, row)
    assert not hub.parts.leases.holds(job_id)
    dispatch.hand_out(hub.parts)
    assert hub.parts.leases.holds(job_id)
    assert [one.job_id for one in hub.parts.queue.waiting()] == [job_id]
    agents()
    dispatch.hand_out(hub.parts)  # the row says that it has ended
    assert hub.parts.queue.waiting() == []
    assert not hub.parts.leases.holds(job_id)


def test_datastores_are_those_of_the_disks_of_the_vm(
    hub: RunningHub, agents: Callable[..., FakeAgent]
) -> None:
    agent = agents()
    job_id = hub.start().job_id
    with hub.parts.catalog.read() as session:
        row = dispatch.find_job(session, job_id)
    assert dispatch.datastores_of(hub.parts, row) == frozenset()  # it tells no file names
    message = agent.vms[0].message()
    message.disks[0].file_name = "[ssd [2]] pgtest1/pgtest1.vmdk"
    message.disks.add(file_name="[hdd] pgtest1/pgtest1_1.vmdk")
    message.disks.add(file_name="no datastore")
    hub.parts.agents.recall("lab", [message])
    assert dispatch.datastores_of(hub.parts, row) == {"ssd [2]", "hdd"}
    row.context.instance_uuid = "another"
    assert dispatch.datastores_of(hub.parts, row) == frozenset()


def test_limits_are_those_of_the_settings(settings: HubSettings) -> None:
    asked = {"jobs_in_parallel": 3, "jobs_per_repository": 2, "jobs_per_datastore": 1}
    with running(settings.model_copy(update=asked)) as hub:
        assert hub.parts.queue.limits == Limits(3, 2, 1)
