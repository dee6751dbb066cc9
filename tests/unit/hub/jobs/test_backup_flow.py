"""Whole backups over real gRPC, played by a scripted agent."""

import json
import subprocess

from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, raw_bytes
from tests.unit.hub.running_hub import RunningHub


def test_backup_is_restorable_when_completed(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    assert job.status == pb.BACKUP_STATUS_PENDING
    started = agent.expect("start_job")
    assert (started.job_id, started.vmware_vm_id, started.instance_uuid) == (
        job.job_id,
        "vm-1",
        "5020-pgtest1",
    )
    disks = [FakeDisk("AB.CR"), FakeDisk(".D", key=2001, uuid="u2", label="Hard disk 2")]
    plan = agent.run_job(job.job_id, disks)
    assert [disk.backup_type for disk in plan.disks] == [pb.BACKUP_TYPE_FULL] * 2
    done = hub.wait(job.job_id)
    assert done.status == pb.BACKUP_STATUS_COMPLETED
    assert done.backup_type == pb.BACKUP_TYPE_FULL
    assert done.bytes_stored == sum(disk.bytes_stored for disk in done.disks) > 0
    assert not done.warnings
    for index, disk in enumerate(disks):
        assert hub.restored(job.job_id, index) == raw_bytes(disk.content)
        path = hub.repository_folder() / done.disks[index].qcow2_path
        subprocess.run(["qemu-img", "check", "-q", path], check=True, timeout=30)
    facts = json.loads(
        (hub.repository_folder() / done.context_id / job.job_id / "job.json").read_text()
    )
    assert facts["vm"]["name"] == "pgtest1"
    assert [disk["root_digest"] for disk in facts["disks"]] == [d.root_digest for d in done.disks]
