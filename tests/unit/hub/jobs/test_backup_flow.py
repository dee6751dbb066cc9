"""Whole backups over real gRPC, played by a scripted agent."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import context_pb2, upload_pb2
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, Uploading, batches, raw_bytes
from tests.unit.hub.running_hub import RunningHub, refusal


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


def test_every_point_of_a_chain_restores_what_the_disk_held(
    hub: RunningHub, agent: FakeAgent
) -> None:
    # What each backup sends, and what the disk holds after it.
    story = [("AB.CR.", "AB.CR."), ("D..0..", "DB..R."), ("..E..F", "DBE.RF")]
    jobs = []
    for number, (sent, _) in enumerate(story):
        job = hub.start()
        agent.expect("start_job")
        disk = FakeDisk(sent, change_id=f"52 aa/{number}", capacity_bytes=6 * 65536 - 512)
        plan = agent.run_job(job.job_id, [disk])
        assert plan.disks[0].base_change_id == (f"52 aa/{number - 1}" if number else "")
        jobs.append(hub.wait(job.job_id))
    assert [job.backup_type for job in jobs] == [
        pb.BACKUP_TYPE_FULL,
        pb.BACKUP_TYPE_INCREMENTAL,
        pb.BACKUP_TYPE_INCREMENTAL,
    ]
    assert [job.disks[0].base_job_id for job in jobs] == ["", jobs[0].job_id, jobs[1].job_id]
    for job, (_, held) in zip(jobs, story, strict=True):
        assert hub.restored(job.job_id) == raw_bytes(held)[: 6 * 65536 - 512]
    context = hub.contexts.GetContext(
        context_pb2.GetContextRequest(context_id=jobs[0].context_id), timeout=20
    ).context
    assert (context.total_backups_run, context.successful_backups) == (3, 3)
    assert context.last_backup_id == jobs[2].job_id
    answer = hub.disks.GetDisk(context_pb2.GetDiskRequest(job_id=jobs[2].job_id), timeout=20)
    assert [row.job_id for row in answer.chain] == [job.job_id for job in reversed(jobs)]


def test_increment_whose_changes_are_unknown_becomes_a_layer_without_a_base(
    hub: RunningHub, agent: FakeAgent
) -> None:
    for content in ("AB", "CD"):
        job = hub.start()
        agent.expect("start_job")
        agent.open_job(job.job_id, [FakeDisk(content)])
        planned = agent.expect("job_plan").disks[0].backup_type
        agent.upload(
            job.job_id,
            0,
            content,
            full_instead=planned == pb.BACKUP_TYPE_INCREMENTAL,
            full_reason="the host forgot the changes",
        )
        agent.send(job_uploaded=session_pb.JobUploaded(job_id=job.job_id))
        done = hub.wait(job.job_id)
    assert planned == pb.BACKUP_TYPE_INCREMENTAL
    assert done.backup_type == pb.BACKUP_TYPE_FULL
    assert done.disks[0].base_disk_id == 0
    assert [one.code for one in done.warnings] == ["FULL_INSTEAD_OF_INCREMENTAL"]
    assert hub.restored(done.job_id) == raw_bytes("CD")


def take_away(layer: Path) -> None:
    layer.unlink()


def take_manifest_away(layer: Path) -> None:
    layer.with_suffix(".manifest").unlink()


def damage_manifest(layer: Path) -> None:
    manifest = layer.with_suffix(".manifest")
    content = bytearray(manifest.read_bytes())
    content[-100] ^= 1
    manifest.write_bytes(content)


def cut(layer: Path) -> None:
    layer.write_bytes(layer.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [take_away, take_manifest_away, damage_manifest, cut])
@pytest.mark.parametrize("damaged", [0, 1], ids=["full", "increment"])
def test_increment_is_full_when_a_layer_below_cannot_be_used(
    hub: RunningHub, agent: FakeAgent, damage: Callable[[Path], None], damaged: int
) -> None:
    jobs = []
    for number in range(2):
        job = hub.start()
        agent.expect("start_job")
        agent.run_job(job.job_id, [FakeDisk("AB", change_id=f"52 aa/{number}")])
        jobs.append(hub.wait(job.job_id))
    assert jobs[1].backup_type == pb.BACKUP_TYPE_INCREMENTAL
    damage(hub.repository_folder() / jobs[damaged].disks[0].qcow2_path)
    job = hub.start()
    agent.expect("start_job")
    plan = agent.run_job(job.job_id, [FakeDisk("CD", change_id="52 aa/2")])
    assert plan.disks[0].backup_type == pb.BACKUP_TYPE_FULL
    done = hub.wait(job.job_id)
    assert done.status == pb.BACKUP_STATUS_COMPLETED
    (warning,) = done.warnings
    assert warning.code == "FULL_INSTEAD_OF_INCREMENTAL"
    assert "cannot be built on" in warning.message
    assert hub.restored(job.job_id) == raw_bytes("CD")
    assert refusal(lambda: hub.restored(jobs[damaged].job_id))[:2] == (
        grpc.StatusCode.DATA_LOSS,
        "LAYER_DAMAGED",
    )


def test_backup_after_one_made_with_snapshots_is_compared_and_names_them(
    hub: RunningHub, agent: FakeAgent
) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk("AB")], other_snapshots=["before the upgrade"])
    first = hub.wait(job.job_id)
    assert not first.warnings
    facts = hub.repository_folder() / first.context_id / first.job_id / "job.json"
    assert json.loads(facts.read_text())["other_snapshots"] == ["before the upgrade"]
    # The VM is reverted: the host goes on with the same tracking uuid.
    job = hub.start()
    agent.expect("start_job")
    plan = agent.run_job(job.job_id, [FakeDisk(".C", change_id="52 aa/2")])
    assert plan.disks[0].backup_type == pb.BACKUP_TYPE_INCREMENTAL
    assert plan.disks[0].read_method == pb.READ_METHOD_COMPARED
    done = hub.wait(job.job_id)
    (warning,) = done.warnings
    assert warning.code == "COMPARED_INSTEAD_OF_TRACKING"
    assert "'before the upgrade'" in warning.message
    assert hub.restored(job.job_id) == raw_bytes("AC")


def test_warnings_of_the_agent_are_kept(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start(quiesce=True)
    assert agent.expect("start_job").quiesce
    skipped = pb.BackupWarning(code="DISK_SKIPPED", message="independent", disk_label="Hard disk 2")
    agent.open_job(job.job_id, [FakeDisk("A")], warnings=[skipped])
    agent.expect("job_plan")
    agent.upload(job.job_id, 0, "A")
    left = pb.BackupWarning(code="SNAPSHOT_LEFT_BEHIND", message="remove it by hand")
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job.job_id, warnings=[left]))
    done = hub.wait(job.job_id)
    assert list(done.warnings) == [skipped, left]
    assert done.consistency_level == pb.CONSISTENCY_LEVEL_CRASH


def test_job_waits_for_all_disks_before_it_completes(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(job.job_id, [FakeDisk("A"), FakeDisk("B", key=2001, uuid="u2")])
    agent.expect("job_plan")
    agent.upload(job.job_id, 0, "A")
    assert hub.get(job.job_id).status == pb.BACKUP_STATUS_RUNNING
    # An agent that claims more than it did fails its job; it is told to clean up.
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job.job_id))
    assert agent.expect("cancel_job").job_id == job.job_id
    failed = hub.wait(job.job_id)
    assert failed.status == pb.BACKUP_STATUS_FAILED
    assert failed.error.reason == "PROTOCOL_VIOLATION"
    hub.wait_for_files(set())


def test_live_progress_is_shown_while_a_disk_moves(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(job.job_id, [FakeDisk("ABC")])
    agent.expect("job_plan")
    with Uploading(agent.channel) as up:
        up.open(job.job_id, 0, bytes_planned=3 * 65536)
        up.until("opened")
        (first, *rest) = batches("ABC")
        up.frame(first)
        up.put(progress=upload_pb2.UploadProgress(bytes_read=65536))
        moving = hub.wait(job.job_id, lambda backup: backup.bytes_read > 0)
        assert (moving.bytes_planned, moving.bytes_read) == (3 * 65536, 65536)
        assert moving.disks[0].bytes_transferred == first.payload_bytes
        assert moving.disks[0].status == pb.BACKUP_STATUS_RUNNING
        for batch in rest:
            up.frame(batch)
        up.finish()
        sealed = up.sealed()
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job.job_id))
    done = hub.wait(job.job_id)
    assert done.disks[0].root_digest == sealed.root_digest.hex()
    assert done.disks[0].bytes_stored == sealed.bytes_stored
    assert done.bytes_read == 3 * 65536
