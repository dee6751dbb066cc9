"""What a hub knows of sites whose agents did not come since it started."""

import grpc

from hub.catalog.engine import Catalog
from hub.catalog.inventories import keep_inventory, kept_inventories
from hub.config import HubSettings
from hub.jobs.kept_inventories import packed, unpacked
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import inventory_pb2
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm
from tests.unit.hub.running_hub import RunningHub, refusal, running

PGTEST1 = FakeVm()
WEB = FakeVm(name="ウェブ", moref="vm-2", instance_uuid="5020-web")


def listed(hub: RunningHub, **filters: object) -> list[tuple[str, str, bool]]:
    request = inventory_pb2.ListVirtualMachinesRequest(**filters)
    answer = hub.inventory.ListVirtualMachines(request, timeout=20)
    return [(vm.name, vm.site, vm.agent_connected) for vm in answer.virtual_machines]


def test_inventory_of_an_away_agent_outlives_the_hub(settings: HubSettings) -> None:
    with running(settings) as hub, FakeAgent(hub.address, "lab", [PGTEST1, WEB]) as agent:
        agent.connect()
    with running(settings) as hub:
        away = [("pgtest1", "lab", False), ("ウェブ", "lab", False)]
        assert listed(hub) == away
        unprotected = inventory_pb2.PROTECTION_NOT_PROTECTED
        assert listed(hub, protection=unprotected) == away
        (site,) = hub.agents.ListAgents(inventory_pb2.ListAgentsRequest(), timeout=20).agents
        assert (site.site, site.connected, site.vm_count) == ("lab", False, 2)
        # Known, though it was never backed up.
        assert refusal(lambda: hub.start("ウェブ"))[:2] == (
            grpc.StatusCode.UNAVAILABLE,
            "AGENT_AWAY",
        )
        with FakeAgent(hub.address, "lab", [WEB]) as agent:
            agent.connect()
            assert listed(hub) == [("ウェブ", "lab", True)]
    with running(settings) as hub:
        assert listed(hub) == [("ウェブ", "lab", False)]


def test_inventory_goes_with_its_agent(settings: HubSettings) -> None:
    with running(settings) as hub, FakeAgent(hub.address, "lab", [PGTEST1]) as agent:
        agent.connect()
    with running(settings) as hub:
        hub.agents.RemoveAgent(inventory_pb2.RemoveAgentRequest(site="lab"), timeout=20)
        assert listed(hub) == []
    with running(settings) as hub:
        assert listed(hub) == []
        with hub.parts.catalog.read() as session:
            assert kept_inventories(session) == {}


def test_inventory_that_cannot_be_read_is_left_out(settings: HubSettings) -> None:
    with running(settings) as hub, FakeAgent(hub.address, "lab", [PGTEST1]) as agent:
        agent.connect()
        catalog = Catalog(settings.catalog_url)
        with catalog.write() as session:
            keep_inventory(session, "lab", b"\xff\xff", hub.parts.now())
        catalog.close()
    with running(settings) as hub:
        assert listed(hub) == []


def test_same_inventory_is_not_written_again(settings: HubSettings) -> None:
    with running(settings) as hub, FakeAgent(hub.address, "lab", [PGTEST1]) as agent:
        agent.connect()
        with hub.parts.catalog.write() as session:
            keep_inventory(session, "lab", b"as it was", hub.parts.now())
        agent.report()
        with hub.parts.catalog.read() as session:
            assert kept_inventories(session) == {"lab": b"as it was"}
        agent.vms.append(WEB)
        agent.report()
        with hub.parts.catalog.read() as session:
            (content,) = kept_inventories(session).values()
    names = [vm.name for vm in unpacked(content).virtual_machines]
    assert names == ["pgtest1", "ウェブ"]


def test_inventory_of_the_largest_site_is_kept_small() -> None:
    vm = FakeVm(disks=[FakeDisk("A", key=2000 + n, uuid=f"6000C29e-{n}") for n in range(8)])
    inventory = session_pb.AgentInventory()
    while inventory.ByteSize() < 8_000_000:
        vm.name, vm.moref = f"vm-{len(inventory.virtual_machines)}", f"vm-{inventory.ByteSize()}"
        inventory.virtual_machines.extend([vm.message()] * 100)
    assert len(packed(inventory)) < 2_000_000
    assert unpacked(packed(inventory)) == inventory
