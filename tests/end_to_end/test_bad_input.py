"""Bad input gets a clear error and loses nothing."""

import signal
import threading
from pathlib import Path

import pytest

from sendense import Client
from sendense.errors import (
    AlreadyExists,
    NotFound,
    SendenseError,
)
from sendense.v1 import backup_pb2 as pb
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite
from tests.end_to_end.processes import Agent, Hub, Program, agent_config, wait_for
from tests.end_to_end.restores import Restorer, Witness
from tests.end_to_end.shared_installation import agent, client, hub, installation, site

MIB = 1 << 20
SMALL = DiskSpec(capacity_bytes=4 * MIB, content=b"some data" * 50_000)


__all__ = ["agent", "client", "hub", "installation", "site"]


def test_unknown_vm_and_repository_are_named(
    site: SimulatedSite, agent: Agent, client: Client
) -> None:
    site.add_vm("here", disks=[SMALL])
    agent.wait_reported("here")
    with pytest.raises(NotFound) as caught:
        client.start_backup("nowhere")
    assert (caught.value.reason, "nowhere" in str(caught.value)) == ("VM_NOT_FOUND", True)
    with pytest.raises(NotFound) as caught:
        client.start_backup("here", repository="no-such")
    assert (caught.value.reason, "no-such" in str(caught.value)) == ("REPOSITORY_NOT_FOUND", True)
    assert "here" not in {job.vm_name for job in client.list_backups()}


def test_a_second_job_for_a_context_is_refused_naming_the_running_one(
    site: SimulatedSite, agent: Agent, client: Client
) -> None:
    """Field failure 23."""
    site.add_vm("busy", disks=[SMALL])
    agent.wait_reported("busy")
    assert agent.program
    agent.program.signal(signal.SIGSTOP)  # holds the first job where it is
    first = client.start_backup("busy")
    try:
        with pytest.raises(AlreadyExists) as caught:
            client.start_backup("busy")
    finally:
        agent.program.signal(signal.SIGCONT)
    assert caught.value.reason == "BACKUP_RUNNING"
    assert first.job_id in str(caught.value)
    assert client.wait(first.job_id, timeout_s=60).status == pb.BACKUP_STATUS_COMPLETED
    assert client.wait(client.start_backup("busy").job_id).status == pb.BACKUP_STATUS_COMPLETED


def test_repeating_a_start_with_its_request_id_starts_nothing_new(
    site: SimulatedSite, agent: Agent, client: Client
) -> None:
    site.add_vm("once", disks=[SMALL])
    agent.wait_reported("once")
    first = client.start_backup("once", request_id="r-1")
    client.wait(first.job_id, timeout_s=60)
    assert client.start_backup("once", request_id="r-1").job_id == first.job_id
    assert len(list(client.list_backups(vm_name="once"))) == 1


def test_an_increment_without_a_base_becomes_a_full_and_says_so(
    site: SimulatedSite, agent: Agent, client: Client
) -> None:
    site.add_vm("first-time", disks=[SMALL])
    agent.wait_reported("first-time")
    job = client.start_backup("first-time", backup_type=pb.BACKUP_TYPE_INCREMENTAL)
    job = client.wait(job.job_id, timeout_s=60)
    assert (job.status, job.backup_type) == (pb.BACKUP_STATUS_COMPLETED, pb.BACKUP_TYPE_FULL)
    assert [w.code for w in job.warnings] == ["FULL_INSTEAD_OF_INCREMENTAL"]
    assert job.warnings[0].message


def test_a_vm_without_disks_fails_with_the_reason(
    site: SimulatedSite, agent: Agent, client: Client
) -> None:
    vm = site.add_vm("diskless", disks=[])
    agent.wait_reported("diskless")
    job = client.wait(client.start_backup("diskless").job_id, timeout_s=60)
    assert (job.status, job.error.reason) == (pb.BACKUP_STATUS_FAILED, "NO_DISKS")
    assert "diskless" in job.error.message
    assert vm.snapshots == []


def test_an_independent_disk_is_skipped_and_named(
    site: SimulatedSite, agent: Agent, client: Client, restorer: Restorer
) -> None:
    vm = site.add_vm(
        "mixed",
        disks=[
            DiskSpec(capacity_bytes=4 * MIB, content=b"raw", mode="independent_persistent"),
            SMALL,
        ],
    )
    agent.wait_reported("mixed")
    job = client.wait(client.start_backup("mixed").job_id, timeout_s=60)
    assert job.status == pb.BACKUP_STATUS_COMPLETED
    assert [(w.code, w.disk_label) for w in job.warnings] == [("DISK_SKIPPED", "Hard disk 1")]
    (disk,) = client.get_backup(job.job_id).disks
    assert (disk.disk_index, disk.label) == (0, "Hard disk 2")
    assert restorer.restore(job.job_id, 0) == Witness.of_disk(vm.disks[1])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"password": "not the password"}, "VSPHERE_LOGIN_FAILED"),
        ({"fingerprint": "ab" * 32}, "VSPHERE_CERTIFICATE_MISMATCH"),
    ],
    ids=["password", "certificate"],
)
def test_a_wrong_password_or_certificate_ends_the_agent_with_the_reason(
    tmp_path: Path, site: SimulatedSite, hub: Hub, wrong: dict[str, str], reason: str
) -> None:
    config = agent_config(tmp_path / "wrong", site, hub.address, name="lab", **wrong)
    program = Program(tmp_path / "wrong.log", "sendense-agent", "run", "--config", str(config))
    assert program.exit_code() == 3
    assert reason in program.log
    assert "Traceback" not in program.log
    assert "not the password" not in program.log
    assert site.password not in program.log


def test_a_failed_job_is_never_a_base_and_leaves_no_files(
    site: SimulatedSite, agent: Agent, hub: Hub, client: Client, restorer: Restorer
) -> None:
    """Field failures 5 and 26."""
    vm = site.add_vm("bumpy", disks=[SMALL])
    agent.wait_reported("bumpy")
    first = client.wait(client.start_backup("bumpy").job_id, timeout_s=60)
    files = hub.files()
    vm.disks[0].write(0, b"one")
    assert agent.program
    agent.program.signal(signal.SIGSTOP)
    cancelled = client.start_backup("bumpy")
    client.cancel_backup(cancelled.job_id)
    agent.program.signal(signal.SIGCONT)
    ended = client.wait(cancelled.job_id, timeout_s=60)
    assert ended.status == pb.BACKUP_STATUS_CANCELLED
    wait_for("files of the cancelled job removed", lambda: hub.files() == files)
    assert vm.snapshots == []
    vm.disks[0].write(MIB, b"two")
    job = client.wait(client.start_backup("bumpy").job_id, timeout_s=60)
    assert client.get_disk(job.job_id, 0).disk.base_job_id == first.job_id
    assert restorer.restore(job.job_id, 0) == Witness.of_disk(vm.disks[0])


def test_a_restore_of_a_job_that_did_not_complete_is_refused(
    tmp_path: Path, site: SimulatedSite, agent: Agent, client: Client
) -> None:
    site.add_vm("without-disks", disks=[])
    agent.wait_reported("without-disks")
    job = client.wait(client.start_backup("without-disks").job_id, timeout_s=60)
    with pytest.raises(SendenseError) as caught:
        client.restore_disk(job.job_id, 0, tmp_path / "never.raw")
    assert caught.value.reason in {"NOT_A_RESTORE_POINT", "DISK_NOT_FOUND"}
    assert list(tmp_path.glob("never*")) == []


def test_starts_from_many_clients_at_once_make_one_job(
    site: SimulatedSite, agent: Agent, hub: Hub, client: Client
) -> None:
    site.add_vm("popular", disks=[SMALL])
    agent.wait_reported("popular")
    assert agent.program
    agent.program.signal(signal.SIGSTOP)
    outcomes: list[str] = []

    def start() -> None:
        with hub.client() as own:
            try:
                outcomes.append(own.start_backup("popular").job_id)
            except AlreadyExists as error:
                outcomes.append(error.reason)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    agent.program.signal(signal.SIGCONT)
    assert outcomes.count("BACKUP_RUNNING") == 7
    (job,) = client.list_backups(vm_name="popular")
    assert client.wait(job.job_id, timeout_s=60).status == pb.BACKUP_STATUS_COMPLETED
