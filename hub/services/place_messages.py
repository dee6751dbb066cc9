"""Repositories and agents as messages."""

from hub.jobs.agents import AgentState
from hub.jobs.repository_states import RepositoryState
from hub.services.messages import timestamp
from sendense.v1 import inventory_pb2, repository_pb2


def repository_message(repository: RepositoryState) -> repository_pb2.Repository:
    """A repository, what is in it and how its folder is now."""
    row, use, space = repository.row, repository.use, repository.space
    return repository_pb2.Repository(
        repository_id=row.id,
        name=row.name,
        path=row.path,
        is_default=row.is_default,
        created_at=timestamp(row.created_at),
        total_bytes=space.total_bytes if space is not None else 0,
        free_bytes=space.free_bytes if space is not None else 0,
        problem=repository.problem,
        disabled=row.disabled,
        context_count=use.contexts,
        restore_point_count=use.restore_points,
        bytes_stored=use.bytes_stored,
    )


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
