"""Statistics for an administrator: what there is now, and what was done day by day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Final

from hub.catalog.protection import protected_vms, vm_key
from hub.catalog.repositories import find_repository
from hub.catalog.statistics import (
    CatalogTotals,
    DaySums,
    agent_sites,
    catalog_totals,
    day_sums,
    in_all,
)
from hub.jobs.parts import Parts
from shared.errors import InvalidArgument

DEFAULT_DAYS: Final = 30
MAX_DAYS: Final = 366


@dataclass(frozen=True, slots=True)
class Statistics:
    """What there is, and the period's days, oldest first, with their sums.

    Agents and VMs are those of the whole hub, whatever repository was asked for: a VM
    without a restore point there is not unprotected when it has one elsewhere.
    """

    stored: CatalogTotals
    agents: int
    agents_connected: int
    virtual_machines: int
    virtual_machines_not_protected: int
    total: DaySums
    days: Sequence[DaySums]


def get_statistics(parts: Parts, *, days: int = 0, repository: str = "") -> Statistics:
    """Of the last `days` days in UTC, today included; 0 means 30. `repository` "" means all.

    Raises RepositoryNotFound, InvalidArgument.
    """
    if not 0 <= days <= MAX_DAYS:
        raise InvalidArgument("days", f"must be between 0 and {MAX_DAYS}")
    days = days or DEFAULT_DAYS
    today = parts.now().astimezone(UTC).date()
    with parts.catalog.read() as session:
        repository_id = find_repository(session, repository).id if repository else ""
        stored = catalog_totals(session, repository_id)
        sums = day_sums(
            session,
            first=today - timedelta(days=days - 1),
            days=days,
            repository_id=repository_id,
        )
        sites = agent_sites(session)
        protected = protected_vms(session)
    machines = [vm_key(one.vm.site, one.vm.instance_uuid) for one in parts.agents.reported()]
    return Statistics(
        stored=stored,
        agents=len(sites),
        agents_connected=sum(parts.agents.presence(site).connected for site in sites),
        virtual_machines=len(machines),
        virtual_machines_not_protected=sum(key not in protected for key in machines),
        total=in_all(sums),
        days=sums,
    )
