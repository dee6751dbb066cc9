"""The row of a site's agent, and the id that its snapshots carry; draining and removal."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from hub.catalog.agents import (
    AgentFacts,
    delete_agent,
    find_agent,
    is_known_site,
    list_agents,
    lock_agent,
    record_departure,
    record_registration,
    set_draining,
)
from hub.catalog.engine import Catalog
from hub.catalog.inventories import keep_inventory, kept_inventories
from hub.catalog.start_job import start_job
from hub.errors import AgentDraining, AgentHasJobs, AgentNotFound
from shared.errors import InvalidArgument
from tests.unit.hub.catalog.conftest import NOON
from tests.unit.hub.catalog.story import PGTEST, Story

WAIT_S = 30
# Long enough for a thread that does not wait to be done.
LOOK_S = 0.3


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


def drain(catalog: Catalog, draining: bool = True, site: str = "lab") -> None:
    with catalog.write() as session:
        assert set_draining(session, site, draining).draining is draining


def delete(catalog: Catalog, site: str = "lab") -> None:
    with catalog.write() as session:
        delete_agent(session, lock_agent(session, site))


def begin(session: Session) -> None:
    """A backup starts at "lab"; the caller commits."""
    start_job(
        session,
        vm=PGTEST,
        repository_id="repo-default",
        requested_type=None,
        quiesce=False,
        request_id="",
        now=NOON,
    )


def draining(catalog: Catalog, site: str = "lab") -> bool:
    with catalog.read() as session:
        return find_agent(session, site).draining


def test_pages_come_in_the_order_of_sites(catalog: Catalog) -> None:
    for site in ("b", "a", "Z", "Zürich", "zz"):
        registered(catalog, site)
    token, sites = "", []
    with catalog.read() as session:
        while True:
            rows, token = list_agents(session, page_size=3, page_token=token)
            sites.append([row.site for row in rows])
            if not token:
                break
        with pytest.raises(InvalidArgument, match="token"):
            list_agents(session, page_token="?")
    assert sites == [["Z", "Zürich", "a"], ["b", "zz"]]


def test_draining_lasts_over_registrations_until_it_is_taken_back(catalog: Catalog) -> None:
    registered(catalog)
    assert not draining(catalog)
    for _ in range(2):  # repeating changes nothing
        drain(catalog)
        registered(catalog, after_s=60)
        assert draining(catalog)
    for _ in range(2):
        drain(catalog, False)
        assert not draining(catalog)
    with pytest.raises(AgentNotFound):
        drain(catalog, site="elsewhere")


def test_start_that_was_first_goes_on_at_a_drained_site(story: Story) -> None:
    catalog = story.catalog
    registered(catalog)
    with ThreadPoolExecutor(1) as pool:
        with catalog.write() as session:
            begin(session)
            waiting = pool.submit(drain, catalog)
            with pytest.raises(TimeoutError):
                waiting.result(LOOK_S)
        waiting.result(WAIT_S)
    assert draining(catalog)


def test_draining_that_was_first_refuses_the_start(story: Story) -> None:
    catalog = story.catalog
    registered(catalog)
    with ThreadPoolExecutor(1) as pool:
        with catalog.write() as session:
            set_draining(session, "lab", True)
            start = pool.submit(story.start)
            with pytest.raises(TimeoutError):
                start.result(LOOK_S)
        with pytest.raises(AgentDraining):
            start.result(WAIT_S)
    drain(catalog, False)
    assert story.start().context.site == "lab"


def test_removed_agent_leaves_its_backups_and_a_later_one_is_new(story: Story) -> None:
    catalog = story.catalog
    first = registered(catalog)
    job = story.whole()
    drain(catalog)
    delete(catalog)
    with catalog.read() as session:
        with pytest.raises(AgentNotFound):
            find_agent(session, "lab")
        assert is_known_site(session, "lab")
        assert not is_known_site(session, "elsewhere")
    assert story.job(job).context.last_backup_id == job.id
    assert registered(catalog) != first
    assert not draining(catalog)


def test_agent_with_a_job_that_has_not_ended_stays(story: Story) -> None:
    registered(story.catalog)
    job = story.start()
    with pytest.raises(AgentHasJobs) as caught:
        delete(story.catalog)
    assert (caught.value.site, caught.value.jobs) == ("lab", 1)
    # Jobs of other sites are none of its.
    registered(story.catalog, "elsewhere")
    delete(story.catalog, "elsewhere")
    story.fail(job)
    delete(story.catalog)
    with pytest.raises(AgentNotFound):
        delete(story.catalog)


def test_registration_waits_for_a_removal_and_is_of_a_new_agent(catalog: Catalog) -> None:
    first = registered(catalog)
    with ThreadPoolExecutor(1) as pool:
        with catalog.write() as session:
            agent = lock_agent(session, "lab")
            registration = pool.submit(registered, catalog)
            with pytest.raises(TimeoutError):
                registration.result(LOOK_S)
            delete_agent(session, agent)
        second = registration.result(WAIT_S)
    assert second != first
    with catalog.read() as session:
        assert [row.id for row in list_agents(session)[0]] == [second]


def test_inventory_of_an_agent_is_replaced_and_goes_with_it(catalog: Catalog) -> None:
    registered(catalog)
    large = bytes(range(256)) * 8_192  # some thousand VMs, compressed
    for content in (b"", large):
        with catalog.write() as session:
            keep_inventory(session, "lab", content, NOON)
        with catalog.read() as session:
            assert kept_inventories(session) == {"lab": content}
    with catalog.write() as session, pytest.raises(AgentNotFound):
        keep_inventory(session, "elsewhere", b"", NOON)
    with catalog.write() as session:
        delete_agent(session, lock_agent(session, "lab"))
    with catalog.read() as session:
        assert kept_inventories(session) == {}
