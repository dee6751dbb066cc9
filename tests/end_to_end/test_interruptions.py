"""Programs that die in mid-job: the job goes on, or fails with a reason; nothing is left behind."""

import random
from pathlib import Path

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


def _assert_goes_on(
    site: SimulatedSite, client: Client, restorer: Restorer, vm: SimulatedVm, job_id: str
) -> None:
    """The job that was broken off ends as if nothing had been, and sends little of it twice."""
    site.faults.release_reads()
    job = client.wait(job_id, timeout_s=60)
    assert job.status == pb.BACKUP_STATUS_COMPLETED
    (disk,) = job.disks
    assert disk.resume_count >= 1
    assert disk.bytes_resent <= 64 * MIB
    assert restorer.restore(job_id, 0) == Witness.of_disk(vm.disks[0])
    assert vm.snapshots == []


def test_a_killed_agent_goes_on_with_its_job_and_snapshot_at_its_next_start(
    site: SimulatedSite, vm: SimulatedVm, agent: Agent, hub: Hub, client: Client, restorer: Restorer
) -> None:
    """Field failures 19 and 21."""
    agent.start()
    job_id = _in_mid_read(site, client)
    assert agent.program
    agent.program.kill()
    wait_for(
        "the job's agent missed",
        lambda: "agent" in client.get_backup(job_id).waiting_for,
    )
    assert [s.name for s in vm.snapshots] == [f"sendense-{job_id}"]
    agent.start()
    _assert_goes_on(site, client, restorer, vm, job_id)
    job = client.wait(client.start_backup("victim").job_id, timeout_s=60)
    assert job.status == pb.BACKUP_STATUS_COMPLETED
    assert restorer.restore(job.job_id, 0) == Witness.of_disk(vm.disks[0])


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


def test_a_killed_hub_has_its_job_go_on_at_its_next_start(
    site: SimulatedSite, vm: SimulatedVm, agent: Agent, hub: Hub, client: Client, restorer: Restorer
) -> None:
    """Field failure 20."""
    agent.start()
    job_id = _in_mid_read(site, client)
    assert hub.program
    hub.program.kill()
    assert hub.files() != []
    hub.start()
    assert client.get_backup(job_id).status == pb.BACKUP_STATUS_RUNNING
    _assert_goes_on(site, client, restorer, vm, job_id)
    wait_for(
        "files of the job alone, none of them unfinished",
        lambda: (
            [Path(path).name for path in hub.files()]
            == ["disk-0.manifest", "disk-0.qcow2", "job.json"]
        ),
    )


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
