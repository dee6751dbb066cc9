"""Alarms of protected VMs: in the inventory's answers, and as numbers for Prometheus."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from hub.config import HubSettings
from hub.errors import CatalogUnavailable
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2
from sendense.v1 import inventory_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm
from tests.unit.hub.running_hub import RunningHub, running

pytestmark = pytest.mark.hostile

T = 20
CODES = ("SNAPSHOT_OLD", "SNAPSHOT_COUNT", "CONSOLIDATION_NEEDED")


def snapshot(name: str, age_h: float = 0, *, is_sendense: bool = False) -> pb.VmSnapshot:
    message = pb.VmSnapshot(name=name, vmware_snapshot_id="1-snapshot-1", is_sendense=is_sendense)
    message.created_at.FromDatetime(datetime.now(UTC) - timedelta(hours=age_h))
    return message


def protect(hub: RunningHub, agent: FakeAgent, vm: str = "pgtest1") -> None:
    job = hub.start(vm)
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk("AB.C")])
    assert hub.wait(job.job_id).status == backup_pb2.BACKUP_STATUS_COMPLETED


def report(agent: FakeAgent, *vms: pb.VirtualMachine) -> None:
    """As an agent does; returns when the hub has taken it."""
    agent.send(inventory=session_pb.AgentInventory(virtual_machines=vms))
    agent.send(job_failed=session_pb.JobFailed(job_id="sync"))
    agent.closed("sync")


def vm_with(
    *snapshots: pb.VmSnapshot, consolidation_needed: bool = False, vm: FakeVm | None = None
) -> pb.VirtualMachine:
    message = (vm or FakeVm()).message()
    message.snapshots.extend(snapshots)
    message.snapshot_count = len(snapshots)
    message.consolidation_needed = consolidation_needed
    return message


def alarms(hub: RunningHub) -> dict[str, list[str]]:
    answer = hub.inventory.ListVirtualMachines(pb.ListVirtualMachinesRequest(), timeout=T)
    return {vm.name: [alarm.code for alarm in vm.alarms] for vm in answer.virtual_machines}


def counted(hub: RunningHub) -> list[float | None]:
    registry = hub.parts.metrics.registry
    return [registry.get_sample_value("sendense_hub_vm_alarms", {"code": code}) for code in CODES]


def test_snapshots_of_a_protected_vm_are_alarms_and_of_another_are_not(
    hub: RunningHub, agent: FakeAgent
) -> None:
    many = [snapshot("forgotten", 200), *(snapshot(f"s{number}") for number in range(3))]
    other = FakeVm("nobody's", "vm-2", "u-2")
    protect(hub, agent)
    assert counted(hub) == [0, 0, 0]
    report(
        agent,
        vm_with(*many, consolidation_needed=True),
        vm_with(*many, consolidation_needed=True, vm=other),
    )
    assert alarms(hub) == {"nobody's": [], "pgtest1": list(CODES)}
    assert counted(hub) == [1, 1, 1]
    answer = hub.inventory.ListVirtualMachines(
        pb.ListVirtualMachinesRequest(name="pgtest1"), timeout=T
    )
    (vm,) = answer.virtual_machines
    assert '"forgotten"' in vm.alarms[0].message
    assert [one.name for one in vm.snapshots] == ["forgotten", "s0", "s1", "s2"]


def test_alarms_go_with_the_snapshots(hub: RunningHub, agent: FakeAgent) -> None:
    protect(hub, agent)
    report(agent, vm_with(snapshot("forgotten", 200)))
    assert alarms(hub) == {"pgtest1": ["SNAPSHOT_OLD"]}
    report(agent, vm_with())
    assert alarms(hub) == {"pgtest1": []}
    assert counted(hub) == [0, 0, 0]


def test_alarms_stay_while_the_agent_is_away_and_over_a_restart(settings: HubSettings) -> None:
    with running(settings) as hub, FakeAgent(hub.address, "lab", [FakeVm()]) as agent:
        agent.connect()
        protect(hub, agent)
        report(agent, vm_with(snapshot("forgotten", 200)))
    with running(settings) as hub:
        assert alarms(hub) == {"pgtest1": ["SNAPSHOT_OLD"]}


def test_limits_are_the_configuration_s(settings: HubSettings) -> None:
    limits = {"snapshot_age_alarm_h": 1000.0, "snapshot_count_alarm": 1}
    changed = settings.model_copy(update=limits)
    with running(changed) as hub, FakeAgent(hub.address, "lab", [FakeVm()]) as agent:
        agent.connect()
        protect(hub, agent)
        report(agent, vm_with(snapshot("one", 200), snapshot("two", 200)))
        assert alarms(hub) == {"pgtest1": ["SNAPSHOT_COUNT"]}


def test_alarms_that_an_agent_claims_are_not_believed(
    hub: RunningHub, agents: Callable[..., FakeAgent]
) -> None:
    agent = agents()
    claimed = vm_with()
    claimed.alarms.add(code="SNAPSHOT_OLD", message="of nobody")
    protect(hub, agent)
    report(agent, claimed)
    assert alarms(hub) == {"pgtest1": []}


@pytest.mark.parametrize("seconds", [None, 1 << 60, -(1 << 60)])
def test_snapshot_whose_date_is_none_is_no_alarm_and_no_error(
    hub: RunningHub, agent: FakeAgent, seconds: int | None
) -> None:
    odd = pb.VmSnapshot(name="odd")
    if seconds is not None:
        odd.created_at.CopyFrom(Timestamp(seconds=seconds))
    protect(hub, agent)
    report(agent, vm_with(odd))
    assert alarms(hub) == {"pgtest1": []}


def test_catalog_that_does_not_answer_leaves_the_number_out(
    hub: RunningHub, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    protect(hub, agent)

    def fail() -> None:
        raise CatalogUnavailable("no answer")

    monkeypatch.setattr(hub.parts.catalog, "read", fail)
    assert counted(hub) == [None, None, None]
    assert hub.parts.metrics.registry.get_sample_value("sendense_hub_agents_connected") == 1
