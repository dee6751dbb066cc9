"""AgentService and InventoryService."""

import grpc

from hub.catalog.agents import all_agents, find_agent, live_jobs_per_site
from hub.jobs.known_names import require_site
from hub.jobs.parts import Parts
from hub.services.messages import agent_message
from sendense.v1 import inventory_pb2 as pb
from sendense.v1.inventory_pb2_grpc import AgentServiceServicer, InventoryServiceServicer
from shared.grpc_errors import status_from


class AgentService(AgentServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def ListAgents(
        self, request: pb.ListAgentsRequest, context: grpc.ServicerContext
    ) -> pb.ListAgentsResponse:
        with status_from(context), self._parts.catalog.read() as session:
            jobs = live_jobs_per_site(session)
            return pb.ListAgentsResponse(
                agents=[
                    agent_message(row, self._parts.agents.presence(row.site), jobs.get(row.site, 0))
                    for row in all_agents(session)
                ]
            )

    def GetAgent(
        self, request: pb.GetAgentRequest, context: grpc.ServicerContext
    ) -> pb.GetAgentResponse:
        with status_from(context), self._parts.catalog.read() as session:
            row = find_agent(session, request.site)
            jobs = live_jobs_per_site(session)
            presence = self._parts.agents.presence(row.site)
            return pb.GetAgentResponse(agent=agent_message(row, presence, jobs.get(row.site, 0)))


class InventoryService(InventoryServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def ListVirtualMachines(
        self, request: pb.ListVirtualMachinesRequest, context: grpc.ServicerContext
    ) -> pb.ListVirtualMachinesResponse:
        with status_from(context):
            require_site(self._parts, request.site)
            return pb.ListVirtualMachinesResponse(
                virtual_machines=self._parts.agents.virtual_machines(
                    site=request.site, name=request.name
                )
            )
