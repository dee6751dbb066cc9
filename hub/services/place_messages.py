"""Repositories and agents as messages."""

from hub.jobs.agents import AgentState
from hub.services.messages import timestamp
from sendense.v1 import inventory_pb2


def agent_message(agent: AgentState) -> inventory_pb2.Agent:
    """An agent's row and how it stands now."""
    row, presence = agent.row, agent.presence
    return inventory_pb2.Agent(
        agent_id=row.id,
        site=row.site,
        hostname=row.hostname,
        version=row.version,
        connected=presence.connected,
        connected_since=timestamp(row.connected_since) if presence.connected else None,
        last_seen_at=timestamp(presence.last_seen_at or row.last_seen_at),
        vsphere=inventory_pb2.VsphereEndpoint(
            address=row.vsphere_address,
            full_name=row.vsphere_full_name,
            api_type=row.vsphere_api_type,
            api_version=row.vsphere_api_version,
        ),
        vm_count=presence.vm_count,
        running_jobs=agent.running_jobs,
        draining=row.draining,
    )
