"""The backup example of each language against a hub, an agent and a site that are really there."""

import json
import random
from subprocess import Popen
from typing import Any

import pytest

from sendense import Client
from sendense.v1 import backup_pb2 as pb
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite
from tests.end_to_end.processes import Agent, Hub, wait_for
from tests.sdk.conftest import Example

MIB = 1 << 20
END_TIMEOUT_S = 60
# Of a host's answers: whatever was sampled before, enough frames have reached the hub then.
HOLD_AT_BYTE = 48 * MIB


def _ended(process: Popen[str]) -> tuple[int, list[str], str]:
    """Exit code, lines of standard output, standard error."""
    output, errors = process.communicate(timeout=END_TIMEOUT_S)
    return process.returncode, output.splitlines(), errors


def _as_the_hub_tells(client: Client, job_id: str) -> list[dict[str, Any]]:
    return [
        {
            "disk_index": disk.disk_index,
            "label": disk.label,
            "capacity_bytes": disk.capacity_bytes,
            "bytes_stored": disk.bytes_stored,
            "disk_change_id": disk.disk_change_id,
        }
        for disk in client.list_disks(job_id=job_id)
    ]


def test_an_example_follows_a_backup_to_its_end_and_lists_its_disks(
    example: Example, site: SimulatedSite, agent: Agent, hub: Hub, client: Client
) -> None:
    content = random.Random(1).randbytes(3 * MIB)
    site.add_vm("pgtest1", disks=[DiskSpec(8 * MIB, content=content), DiskSpec(4 * MIB)])
    agent.start()
    default = next(r.name for r in client.list_repositories() if r.is_default)

    code, lines, errors = _ended(example("--hub", hub.address, "--repository", default, "pgtest1"))

    assert (code, errors) == (0, "")
    told = json.loads(lines[-1])
    (job,) = client.list_backups()
    assert (told["job_id"], told["status"]) == (job.job_id, "BACKUP_STATUS_COMPLETED")
    assert "error" not in told
    disks = _as_the_hub_tells(client, job.job_id)
    assert told["disks"] == disks
    assert [disk["disk_index"] for disk in disks] == [0, 1]
    assert all(disk["label"] and disk["disk_change_id"] for disk in disks)
    # The last line of progress: all of the job.
    assert lines[-2] == (
        f"{job.job_id} BACKUP_STATUS_COMPLETED: {job.bytes_read} of {job.bytes_planned} bytes read, "
        f"{job.bytes_transferred} sent"
    )
    assert job.bytes_read > 0


def test_an_example_tells_the_reason_when_the_hub_refuses(
    example: Example, hub: Hub, client: Client
) -> None:
    code, lines, errors = _ended(example("--hub", hub.address, "nowhere"))
    assert (code, lines) == (1, [])
    assert errors.startswith("error: VM_NOT_FOUND: no connected site has a VM 'nowhere'")

    code, lines, errors = _ended(example("--hub", hub.address, "v" * 300))
    assert (code, lines) == (1, [])
    assert errors.startswith("error: INVALID_ARGUMENT: ")
    assert "; vm: " in errors, "the field at fault, out of BadRequest"
    assert list(client.list_backups()) == []


def test_an_example_says_so_when_there_is_no_hub(example: Example) -> None:
    code, lines, errors = _ended(example("--hub", "127.0.0.1:1", "pgtest1"))
    assert (code, lines) == (1, [])
    assert errors.startswith("error: Unavailable: ")


@pytest.fixture
def held_back(
    example: Example, site: SimulatedSite, agent: Agent, hub: Hub, client: Client
) -> Popen[str]:
    """An example whose job has some data, and whose next read the host holds back."""
    content = random.Random(3).randbytes(96 * MIB)
    site.add_vm("victim", disks=[DiskSpec(128 * MIB, content=content)])
    agent.start()
    site.faults.set("nfc-stall", at_byte=HOLD_AT_BYTE)
    process = example("--hub", hub.address, "victim")
    wait_for(
        "a job with data",
        lambda: any(client.get_backup(j.job_id).bytes_transferred for j in client.list_backups()),
    )
    return process


def test_an_example_outlives_a_restart_of_the_hub_and_so_does_its_job(
    held_back: Popen[str], site: SimulatedSite, hub: Hub
) -> None:
    assert hub.program
    hub.program.kill()
    hub.start()
    site.faults.release_reads()

    code, lines, errors = _ended(held_back)

    with hub.client() as again:
        (job,) = again.list_backups()
        disks = _as_the_hub_tells(again, job.job_id)
    assert job.status == pb.BACKUP_STATUS_COMPLETED
    assert code == 0, errors
    told = json.loads(lines[-1])
    assert (told["job_id"], told["status"]) == (job.job_id, "BACKUP_STATUS_COMPLETED")
    assert told["disks"] == disks


def test_an_example_tells_why_its_job_failed(
    held_back: Popen[str], agent: Agent, client: Client
) -> None:
    assert agent.stop() == 0

    code, lines, errors = _ended(held_back)

    (job,) = client.list_backups()
    assert (job.status, job.error.reason) == (pb.BACKUP_STATUS_FAILED, "AGENT_STOPPING")
    assert code == 1
    told = json.loads(lines[-1])
    assert (told["job_id"], told["status"]) == (job.job_id, "BACKUP_STATUS_FAILED")
    assert told["error"] == {"reason": "AGENT_STOPPING", "message": job.error.message}
    assert told["disks"] == _as_the_hub_tells(client, job.job_id)
    assert f"error: AGENT_STOPPING: {job.error.message}" in errors


def test_an_example_shows_its_usage_when_the_vm_is_missing(example: Example) -> None:
    code, lines, errors = _ended(example())
    assert (code, lines) == (2, [])
    assert "usage: backup [--hub HOST:PORT] [--repository NAME] VM" in errors
