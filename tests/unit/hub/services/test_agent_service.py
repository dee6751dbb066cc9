"""Agents over gRPC: listed, drained, resumed, removed."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from hub.catalog import agents as rules
from hub.config import HubSettings
from hub.main import Hub
from sendense.v1 import backup_pb2, context_pb2
from sendense.v1 import inventory_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm
from tests.unit.hub.running_hub import RunningHub, refusal

Agents = Callable[..., FakeAgent]
Code = grpc.StatusCode
T = 20


def get(hub: RunningHub, site: str = "lab") -> pb.Agent:
    return hub.agents.GetAgent(pb.GetAgentRequest(site=site), timeout=T).agent


def listed(hub: RunningHub) -> list[str]:
    answer = hub.agents.ListAgents(pb.ListAgentsRequest(), timeout=T)
    return [agent.site for agent in answer.agents]


def drain(hub: RunningHub, site: str = "lab") -> pb.Agent:
    return hub.agents.DrainAgent(pb.DrainAgentRequest(site=site), timeout=T).agent


def resume(hub: RunningHub, site: str = "lab") -> pb.Agent:
    return hub.agents.ResumeAgent(pb.ResumeAgentRequest(site=site), timeout=T).agent


def remove(hub: RunningHub, site: str = "lab") -> pb.Agent:
    return hub.agents.RemoveAgent(pb.RemoveAgentRequest(site=site), timeout=T).agent


def gone(hub: RunningHub, agent: FakeAgent) -> None:
    agent.close()
    hub.wait_until_away(agent.site)


def test_pages_come_in_the_order_of_sites(hub: RunningHub, agents: Agents) -> None:
    for site in ("c", "a", "b"):
        agents(site)
    first = hub.agents.ListAgents(pb.ListAgentsRequest(page_size=2), timeout=T)
    request = pb.ListAgentsRequest(page_size=2, page_token=first.next_page_token)
    second = hub.agents.ListAgents(request, timeout=T)
    assert [agent.site for agent in first.agents] == ["a", "b"]
    assert [agent.site for agent in second.agents] == ["c"]
    assert second.next_page_token == ""
    assert list(second.agents) == [get(hub, "c")]


def test_unknown_site_is_not_found(hub: RunningHub) -> None:
    for call in (get, drain, resume, remove):
        assert refusal(lambda c=call: c(hub, "nowhere"))[:2] == (
            Code.NOT_FOUND,
            "AGENT_NOT_FOUND",
        )


def test_drained_site_takes_no_new_backup_and_ends_the_running_one(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = hub.start(request_id="r-1")
    agent.expect("start_job")
    for _ in range(2):  # repeating changes nothing
        drained = drain(hub)
        assert (drained.draining, drained.connected, drained.running_jobs) == (True, True, 1)
    assert refusal(hub.start)[:2] == (Code.FAILED_PRECONDITION, "AGENT_DRAINING")
    assert hub.start(request_id="r-1").job_id == job.job_id
    agent.run_job(job.job_id, [FakeDisk("AB.C")])
    assert hub.wait(job.job_id).status == backup_pb2.BACKUP_STATUS_COMPLETED
    for _ in range(2):
        assert not resume(hub).draining
    assert hub.start().job_id != job.job_id


def test_other_sites_go_on_while_one_is_drained(hub: RunningHub, agents: Agents) -> None:
    agents("lab", FakeVm("pgtest1"))
    agents("other", FakeVm("pgtest2"))
    drain(hub)
    assert hub.start("pgtest2").site == "other"
    assert [get(hub, site).draining for site in ("lab", "other")] == [True, False]


def test_draining_lasts_over_restarts_of_hub_and_agent(settings: HubSettings) -> None:
    for round_ in range(2):
        with Hub(settings) as running, grpc.insecure_channel(str(running.address)) as channel:
            hub = RunningHub(running, channel)
            with FakeAgent(hub.address, vms=[FakeVm()]) as agent:
                agent.connect()
                if round_ == 0:
                    drain(hub)
                    gone(hub, agent)
                    agent = FakeAgent(hub.address, vms=[FakeVm()]).connect()
                assert get(hub).draining
                assert refusal(hub.start)[1] == "AGENT_DRAINING"
                agent.close()


def test_removed_agent_is_forgotten_with_its_inventory_and_its_backups_stay(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk("AB.C")])
    hub.wait(job.job_id)
    drain(hub)
    gone(hub, agent)
    removed = remove(hub)
    assert (removed.site, removed.agent_id, removed.vm_count) == ("lab", agent.agent_id, 1)
    assert removed.draining
    assert listed(hub) == []
    answer = hub.inventory.ListVirtualMachines(pb.ListVirtualMachinesRequest(), timeout=T)
    assert list(answer.virtual_machines) == []
    assert refusal(remove_of(hub))[:2] == (Code.NOT_FOUND, "AGENT_NOT_FOUND")
    # Its backups can be listed by its site, and restored.
    contexts = hub.contexts.ListContexts(context_pb2.ListContextsRequest(site="lab"), timeout=T)
    assert [context.context_id for context in contexts.contexts] == [job.context_id]
    assert hub.restored(job.job_id)
    # An agent that comes later is a new one.
    with FakeAgent(hub.address, vms=[FakeVm()]) as later:
        assert later.connect().agent_id != agent.agent_id
        assert not get(hub).draining
        assert hub.start().context_id == job.context_id


def remove_of(hub: RunningHub) -> Callable[[], object]:
    return lambda: remove(hub)


def test_connected_agent_stays(hub: RunningHub, agent: FakeAgent) -> None:
    assert refusal(remove_of(hub))[:2] == (Code.FAILED_PRECONDITION, "AGENT_CONNECTED")
    assert get(hub).vm_count == 1


def test_agent_with_a_job_that_has_not_ended_stays(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    gone(hub, agent)
    code, reason, facts = refusal(remove_of(hub))
    assert (code, reason, facts["jobs"]) == (Code.FAILED_PRECONDITION, "AGENT_HAS_JOBS", "1")
    hub.cancel(job.job_id)
    hub.wait(job.job_id)
    assert remove(hub).site == "lab"


def test_agent_that_joins_before_the_removal_asked_is_kept(
    hub: RunningHub, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone(hub, agent)
    later: list[FakeAgent] = []
    real = rules.lock_agent

    def lock(session: Any, site: str) -> Any:
        # It is in the directory, and waits for the catalog that the removal holds.
        if not later:
            later.append(FakeAgent(hub.address, vms=[FakeVm("later")]))
            waiting = threading.Event()
            while not hub.parts.agents.presence("lab").connected:
                waiting.wait(0.01)
        return real(session, site)

    monkeypatch.setattr(rules, "lock_agent", lock)
    assert refusal(remove_of(hub))[:2] == (Code.FAILED_PRECONDITION, "AGENT_CONNECTED")
    with later[0].connect() as back:
        assert back.agent_id == agent.agent_id
        assert hub.start("later").site == "lab"


def test_agent_that_joins_after_the_removal_asked_is_a_new_one(
    hub: RunningHub, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone(hub, agent)
    later: list[FakeAgent] = []
    real = rules.delete_agent

    def delete(session: Any, row: Any) -> None:
        later.append(FakeAgent(hub.address, vms=[FakeVm("later")]))
        waiting = threading.Event()
        while not hub.parts.agents.presence("lab").connected:
            waiting.wait(0.01)
        real(session, row)

    monkeypatch.setattr(rules, "delete_agent", delete)
    assert remove(hub).agent_id == agent.agent_id
    with later[0].connect() as new:
        assert new.agent_id != agent.agent_id
        assert get(hub).agent_id == new.agent_id
        assert hub.start("later").site == "lab"


def test_removals_and_registrations_at_once_leave_a_working_site(hub: RunningHub) -> None:
    stop = threading.Event()

    def keep_removing() -> None:
        while not stop.is_set():
            try:
                remove(hub)
            except grpc.RpcError as error:
                assert error.code() in (Code.NOT_FOUND, Code.FAILED_PRECONDITION)

    with ThreadPoolExecutor(1) as pool:
        removing = pool.submit(keep_removing)
        try:
            for _ in range(10):
                with FakeAgent(hub.address, vms=[FakeVm()]) as agent:
                    agent.connect()
                    found = get(hub)
                    assert (found.agent_id, found.vm_count) == (agent.agent_id, 1)
                hub.wait_until_away("lab")
        finally:
            stop.set()
        removing.result(T)
