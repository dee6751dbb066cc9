"""Sites: their agents, and the VMs that these report."""

from sendense.api.connection import Connection
from sendense.models import Protection
from sendense.requests import build, choice
from sendense.v1 import inventory_pb2, inventory_pb2_grpc


class SiteCalls(Connection):
    """AgentService and InventoryService."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        super().__init__(address, timeout_s=timeout_s)
        self._agents = inventory_pb2_grpc.AgentServiceStub(self._channel)
        self._inventory = inventory_pb2_grpc.InventoryServiceStub(self._channel)

    def list_agents(self) -> list[inventory_pb2.Agent]:
        """All agents ever registered, ordered by site."""
        request = inventory_pb2.ListAgentsRequest()
        return list(self._pages(self._agents.ListAgents, request, lambda page: page.agents))

    def get_agent(self, site: str) -> inventory_pb2.Agent:
        """The agent of one site. Raises NotFound (AGENT_NOT_FOUND)."""
        request = build(inventory_pb2.GetAgentRequest, site=site)
        return self._call(self._agents.GetAgent, request).agent

    def drain_agent(self, site: str) -> inventory_pb2.Agent:
        """Let no new backup start at a site until `resume_agent`; running ones end as they would.

        Raises NotFound (AGENT_NOT_FOUND).
        """
        request = build(inventory_pb2.DrainAgentRequest, site=site)
        return self._call(self._agents.DrainAgent, request).agent

    def resume_agent(self, site: str) -> inventory_pb2.Agent:
        """Let backups start at a site again. Raises NotFound (AGENT_NOT_FOUND)."""
        request = build(inventory_pb2.ResumeAgentRequest, site=site)
        return self._call(self._agents.ResumeAgent, request).agent

    def remove_agent(self, site: str) -> inventory_pb2.Agent:
        """Forget the agent of a site and its inventory, and return it as it was; backups stay.

        Raises NotFound (AGENT_NOT_FOUND), FailedPrecondition (AGENT_CONNECTED, AGENT_HAS_JOBS).
        """
        request = build(inventory_pb2.RemoveAgentRequest, site=site)
        return self._call(self._agents.RemoveAgent, request).agent

    def list_virtual_machines(
        self, *, site: str = "", name: str = "", protection: Protection = Protection.UNSPECIFIED
    ) -> list[inventory_pb2.VirtualMachine]:
        """VMs as the agents last reported them, ordered by name and site.

        A VM is protected when it has a restore point in any repository. Raises
        NotFound (SITE_NOT_FOUND).
        """
        request = build(
            inventory_pb2.ListVirtualMachinesRequest,
            site=site,
            name=name,
            protection=choice("protection", Protection, protection),
        )
        method = self._inventory.ListVirtualMachines
        return list(self._pages(method, request, lambda page: page.virtual_machines))
