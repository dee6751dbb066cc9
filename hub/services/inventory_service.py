"""AgentService and InventoryService."""

from types import MappingProxyType
from typing import Final

import grpc

from hub.jobs.agents import get_agent, list_agents, remove_agent, set_draining
from hub.jobs.inventory import list_virtual_machines
from hub.jobs.parts import Parts
from hub.services.place_messages import agent_message
from sendense.v1 import inventory_pb2 as pb
from sendense.v1.inventory_pb2_grpc import AgentServiceServicer, InventoryServiceServicer
from shared.errors import InvalidArgument
from shared.grpc_errors import status_from

PROTECTED: Final = MappingProxyType(
    {
        pb.PROTECTION_UNSPECIFIED: None,
        pb.PROTECTION_PROTECTED: True,
        pb.PROTECTION_NOT_PROTECTED: False,
    }
)


class AgentService(AgentServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def ListAgents(
        self, request: pb.ListAgentsRequest, context: grpc.ServicerContext
    ) -> pb.ListAgentsResponse:
        with status_from(context):
            agents, next_token = list_agents(
                self._parts, page_size=request.page_size, page_token=request.page_token
            )
            return pb.ListAgentsResponse(
                agents=[agent_message(one) for one in agents], next_page_token=next_token
            )

    def GetAgent(
        self, request: pb.GetAgentRequest, context: grpc.ServicerContext
    ) -> pb.GetAgentResponse:
        with status_from(context):
            agent = get_agent(self._parts, request.site)
            return pb.GetAgentResponse(agent=agent_message(agent))

    def DrainAgent(
        self, request: pb.DrainAgentRequest, context: grpc.ServicerContext
    ) -> pb.DrainAgentResponse:
        with status_from(context):
            agent = set_draining(self._parts, request.site, True)
            return pb.DrainAgentResponse(agent=agent_message(agent))

    def ResumeAgent(
        self, request: pb.ResumeAgentRequest, context: grpc.ServicerContext
    ) -> pb.ResumeAgentResponse:
        with status_from(context):
            agent = set_draining(self._parts, request.site, False)
            return pb.ResumeAgentResponse(agent=agent_message(agent))

    def RemoveAgent(
        self, request: pb.RemoveAgentRequest, context: grpc.ServicerContext
    ) -> pb.RemoveAgentResponse:
        with status_from(context):
            agent = remove_agent(self._parts, request.site)
            return pb.RemoveAgentResponse(agent=agent_message(agent))


class InventoryService(InventoryServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def ListVirtualMachines(
        self, request: pb.ListVirtualMachinesRequest, context: grpc.ServicerContext
    ) -> pb.ListVirtualMachinesResponse:
        with status_from(context):
            if request.protection not in PROTECTED:
                raise InvalidArgument("protection", f"{request.protection} is no protection")
            machines, next_token = list_virtual_machines(
                self._parts,
                site=request.site,
                name=request.name,
                protected=PROTECTED[request.protection],
                page_size=request.page_size,
                page_token=request.page_token,
            )
            return pb.ListVirtualMachinesResponse(
                virtual_machines=machines, next_page_token=next_token
            )
