"""Programs that die in mid-job: the job fails with a reason, nothing is left behind, the next one works."""

import random

import pytest

from sendense import Client
from sendense.v1 import backup_pb2 as pb
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.end_to_end.processes import Agent, Hub, wait_for
from tests.end_to_end.restores import Restorer, Witness

MIB = 1 << 20


# Of a host's answers: whatever was sampled before, enough frames have reached the hub then.
HOLD_AT_BYTE = 48 * MIB


@pytest.fixture
def vm(site: SimulatedSite) -> SimulatedVm:
    content = random.Random(3).randbytes(96 * MIB)
    return site.add_vm("victim", disks=[DiskSpec(capacity_bytes=128 * MIB, content=content)])


def _in_mid_read(site: SimulatedSite, client: Client) -> str:
    """A job of which the hub has some data, and whose next read the host holds back."""
    site.faults.set("nfc-stall", at_byte=HOLD_AT_BYTE)
    job = client.start_backup("victim")
    for state in client.watch(job.job_id):
        if state.bytes_transferred > 0:
            break
    assert client.get_backup(job.job_id).status == pb.BACKUP_STATUS_RUNNING
    return job.job_id


def _assert_next_backup_is_whole(
    site: SimulatedSite, client: Client, restorer: Restorer, vm: SimulatedVm, hub: Hub
) -> None:
    site.faults.release_reads()
    job = client.wait(client.start_backup("victim").job_id, timeout_s=60)
    assert job.status == pb.BACKUP_STATUS_COMPLETED
    assert restorer.restore(job.job_id, 0) == Witness.of_disk(vm.disks[0])
    assert vm.snapshots == []
    # Of both jobs, only the completed one has files.
    wait_for(
        "files of the completed job alone",
        lambda: {path.split("/")[1] for path in hub.files()} == {job.job_id},
    )


def test_a_killed_agent_fails_its_job_and_sweeps_its_snapshot_at_the_next_start(
    site: SimulatedSite, vm: SimulatedVm, agent: Agent, hub: Hub, client: Client, restorer: Restorer
) -> None:
    """Field failures 19 and 21."""
    agent.start()
    job_id = _in_mid_read(site, client)
    assert agent.program
    agent.program.kill()
    job = client.wait(job_id, timeout_s=60)
    assert (job.status, job.error.reason) == (pb.BACKUP_STATUS_FAILED, "AGENT_LOST")
    wait_for("files of the failed job removed", lambda: hub.files() == [])
    assert [s.name for s in vm.snapshots] == [f"sendense-{job_id}"]
    agent.start()
    wait_for("snapshot swept", lambda: vm.snapshots == [])
    _assert_next_backup_is_whole(site, client, restorer, vm, hub)


def test_a_snapshot_that_is_not_ours_is_never_swept(
    vm: SimulatedVm, agent: Agent, hub: Hub, client: Client, restorer: Restorer
) -> None:
    vm.create_snapshot("before the upgrade")
    agent.start()
    job = client.wait(client.start_backup("victim").job_id, timeout_s=60)
    assert job.status == pb.BACKUP_STATUS_COMPLETED
    assert restorer.restore(job.job_id, 0) == Witness.of_disk(vm.disks[0])
    assert [s.name for s in vm.snapshots] == ["before the upgrade"]


def test_a_stopped_agent_removes_its_snapshot_and_the_job_says_why(
    site: SimulatedSite, vm: SimulatedVm, agent: Agent, hub: Hub, client: Client, restorer: Restorer
) -> None:
    agent.start()
    job_id = _in_mid_read(site, client)
    assert agent.stop() == 0
    job = client.wait(job_id, timeout_s=60)
    assert job.status == pb.BACKUP_STATUS_FAILED
    assert job.error.reason in {"AGENT_STOPPING", "AGENT_LOST"}
    assert vm.snapshots == []
    agent.start()
    _assert_next_backup_is_whole(site, client, restorer, vm, hub)


def test_a_killed_hub_fails_the_job_at_its_next_start_and_removes_its_files(
    site: SimulatedSite, vm: SimulatedVm, agent: Agent, hub: Hub, client: Client, restorer: Restorer
) -> None:
    """Field failure 20."""
    agent.start()
    job_id = _in_mid_read(site, client)
    assert hub.program
    hub.program.kill()
    assert hub.files() != []
    hub.start()
    with hub.client() as again:
        job = again.get_backup(job_id)
        assert (job.status, job.error.reason) == (pb.BACKUP_STATUS_FAILED, "HUB_RESTARTED")
    assert hub.files() == []
    agent.wait_connected()
    wait_for("snapshot removed by the agent", lambda: vm.snapshots == [])
    _assert_next_backup_is_whole(site, client, restorer, vm, hub)


def test_a_cancelled_job_leaves_neither_snapshot_nor_files(
    site: SimulatedSite, vm: SimulatedVm, agent: Agent, hub: Hub, client: Client, restorer: Restorer
) -> None:
    agent.start()
    job_id = _in_mid_read(site, client)
    client.cancel_backup(job_id, reason="maintenance")
    job = client.wait(job_id, timeout_s=60)
    assert job.status == pb.BACKUP_STATUS_CANCELLED
    assert "maintenance" in job.error.message
    assert vm.snapshots == []
    wait_for("files removed", lambda: hub.files() == [])
    _assert_next_backup_is_whole(site, client, restorer, vm, hub)
