"""Names that two sites have, agents and repositories that are away: clear errors, nothing lost."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from sendense import Client
from sendense.errors import (
    FailedPrecondition,
    Unavailable,
)
from sendense.v1 import backup_pb2 as pb
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite
from tests.end_to_end.processes import Agent, Hub, wait_for
from tests.end_to_end.restores import Restorer, Witness

MIB = 1 << 20
SMALL = DiskSpec(capacity_bytes=4 * MIB, content=b"some data" * 50_000)


def test_a_name_that_two_sites_have_needs_the_site(
    tmp_path: Path, hub: Hub, client: Client, restorer: Restorer, cleanup: ExitStack
) -> None:
    """Field failure 3: another site's VM of that name has nothing to do with this one's chain."""
    vms = {}
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        site = cleanup.enter_context(SimulatedSite(tmp_path / name))
        content = name.encode() * 100_000
        vms[name] = site.add_vm("twin", disks=[DiskSpec(capacity_bytes=4 * MIB, content=content)])
        agent = Agent(tmp_path / f"agent-{name}", site, hub, name=name)
        agent.start()
        cleanup.callback(agent.stop)
    with pytest.raises(FailedPrecondition) as caught:
        client.start_backup("twin")
    assert caught.value.reason == "VM_AMBIGUOUS"
    assert "north" in str(caught.value)
    assert "south" in str(caught.value)
    for name, vm in vms.items():
        job = client.start_backup("twin", site=name)
        assert client.wait(job.job_id, timeout_s=60).status == pb.BACKUP_STATUS_COMPLETED
        assert restorer.restore(job.job_id, 0) == Witness.of_disk(vm.disks[0])
    assert len(list(client.list_contexts())) == 2


def test_a_vm_of_an_agent_that_is_away_is_unavailable(
    site: SimulatedSite, agent: Agent, client: Client
) -> None:
    site.add_vm("far", disks=[SMALL])
    agent.start()
    agent.stop()
    wait_for("agent away", lambda: not any(a.connected for a in client.list_agents()))
    with pytest.raises(Unavailable) as caught:
        client.start_backup("far")
    assert caught.value.reason == "AGENT_AWAY"
    assert "lab" in str(caught.value)


def test_a_repository_that_went_missing_is_refused_before_a_job_exists(
    site: SimulatedSite, agent: Agent, hub: Hub, client: Client
) -> None:
    site.add_vm("homeless", disks=[SMALL])
    agent.start()
    shutil.rmtree(hub.repository)
    with pytest.raises(FailedPrecondition) as caught:
        client.start_backup("homeless")
    assert caught.value.reason == "REPOSITORY_UNUSABLE"
    assert str(hub.repository) in str(caught.value)
    assert list(client.list_backups()) == []
