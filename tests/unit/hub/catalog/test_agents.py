"""The row of a site's agent, and the id that its snapshots carry."""

from collections.abc import Callable
from datetime import timedelta

from hub.catalog.agents import AgentFacts, record_departure, record_registration
from hub.catalog.engine import Catalog
from tests.unit.hub.catalog.conftest import NOON


def registered(catalog: Catalog, site: str = "lab", after_s: float = 0) -> str:
    facts = AgentFacts(site, "host-1", "0.1.0", "10.0.0.1", "ESXi", "HostAgent", "8.0")
    with catalog.write() as session:
        return record_registration(session, facts, NOON + timedelta(seconds=after_s)).id


def test_agent_id_of_a_site_stays_when_it_comes_back(catalog: Catalog) -> None:
    first = registered(catalog)
    with catalog.write() as session:
        record_departure(session, "lab", NOON)
    assert registered(catalog, after_s=3600) == first
    assert registered(catalog, "Lab") != first


def test_agent_id_is_another_in_another_catalog_at_the_same_moment(
    catalog: Catalog, empty_catalog: Callable[[], Catalog]
) -> None:
    other = empty_catalog()
    other.upgrade()
    assert registered(other) != registered(catalog)
